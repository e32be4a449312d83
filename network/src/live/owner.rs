//! The two ways in which a container has a network: on networks of the host, or as an ordinary
//! user's, by a helper or by the monitor alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::joined::Joined;
use crate::NetworkError;
use crate::plan::{EndpointPlan, NetworkPlan};
use crate::user_mode::UserMode;

/// The network of one running container.
#[derive(Debug)]
pub enum Live {
    /// On networks.
    Joined(Box<Joined>),
    /// Without rights on the host's network.
    User(Box<UserMode>),
}

impl Live {
    /// Makes the network of a container whose namespace is there and whose program waits; `pid` is
    /// its init.
    ///
    /// # Errors
    /// What could not be done; then everything is given back.
    pub fn start(plan: NetworkPlan, netns: OwnedFd, pid: i32) -> Result<Self, NetworkError> {
        match plan.user {
            Some(way) => {
                UserMode::start(plan, &way, netns, pid).map(|live| Self::User(live.into()))
            }
            None => Joined::start(plan, netns).map(|live| Self::Joined(live.into())),
        }
    }

    /// Goes on with the network of a container that runs and whose monitor was killed; `pid` is its
    /// init.
    ///
    /// # Errors
    /// What is not the container's any more.
    pub fn resume(plan: NetworkPlan, netns: OwnedFd, pid: i32) -> Result<Self, NetworkError> {
        match plan.user {
            Some(way) => {
                UserMode::resume(plan, &way, netns, pid).map(|live| Self::User(live.into()))
            }
            None => Joined::resume(plan, netns).map(|live| Self::Joined(live.into())),
        }
    }

    /// Puts the running container on a further network.
    ///
    /// # Errors
    /// What could not be done; then nothing has changed.
    pub fn join(&mut self, plan: EndpointPlan) -> Result<(), NetworkError> {
        match self {
            Self::Joined(live) => live.join(plan),
            Self::User(_) => Err(NetworkError::OrdinaryUser { network: plan.name }),
        }
    }

    /// Takes the running container off a network. Ports stay published where they lead.
    ///
    /// # Errors
    /// When it is not on the network.
    pub fn leave(&mut self, network: &str) -> Result<(), NetworkError> {
        match self {
            Self::Joined(live) => live.leave(network),
            Self::User(_) => Err(NetworkError::OrdinaryUser {
                network: network.to_owned(),
            }),
        }
    }

    /// What is left to be done once the container runs: nothing that its program waits for.
    pub fn settle(&mut self) {
        if let Self::Joined(live) = self {
            live.settle();
        }
    }

    /// Handles what is ready, without waiting.
    pub fn turn(&mut self) {
        match self {
            Self::Joined(live) => live.turn(),
            Self::User(live) => live.turn(),
        }
    }

    /// Gives the published ports back: before anybody hears that the container has ended, so that
    /// the next one can have them.
    pub fn release_ports(&mut self) {
        match self {
            Self::Joined(live) => live.release_ports(),
            Self::User(live) => live.release_ports(),
        }
    }

    /// Gives everything else back.
    pub fn release(&mut self) {
        match self {
            Self::Joined(live) => live.release(),
            Self::User(live) => live.release(),
        }
    }
}

impl AsFd for Live {
    /// Readable when [`Live::turn`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Joined(live) => live.as_fd(),
            Self::User(live) => live.as_fd(),
        }
    }
}

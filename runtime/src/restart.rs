//! Restart policies: what happens when a container's program has ended by itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What happens when a container's program has ended and nobody asked it to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// It is started again, also after a reboot, even when somebody had stopped it.
    Always,
    /// It is started again when its exit code is not 0.
    OnFailure {
        /// So many times; without end when absent.
        max_retries: Option<u32>,
    },
    /// It is started again, also after a reboot, unless somebody had stopped it.
    UnlessStopped,
}

/// Not a restart policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a restart policy: there are no, always, unless-stopped and on-failure[:N]")]
pub struct NoRestartPolicy(String);

impl FromStr for RestartPolicy {
    type Err = NoRestartPolicy;

    fn from_str(text: &str) -> Result<Self, NoRestartPolicy> {
        let refused = || NoRestartPolicy(text.to_owned());
        let (name, retries) = match text.split_once(':') {
            Some((name, retries)) => (name, Some(retries)),
            None => (text, None),
        };
        match (name, retries) {
            ("no" | "", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", retries) => {
                let retries = retries.map(str::parse::<u32>).transpose();
                let max_retries = retries.map_err(|_| refused())?;
                Ok(Self::OnFailure {
                    // As with Docker, 0 sets no limit.
                    max_retries: max_retries.filter(|retries| *retries > 0),
                })
            }
            _ => Err(refused()),
        }
    }
}

impl RestartPolicy {
    /// The policy's name, as Docker spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnFailure { .. } => "on-failure",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How often it starts a failing container again; 0 when that is not limited.
    #[must_use]
    pub fn max_retries(self) -> u32 {
        match self {
            Self::OnFailure { max_retries } => max_retries.unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether a program that ended by itself is started again, after so many restarts.
    #[must_use]
    pub fn wants_restart(self, exit_code: u8, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure { max_retries } => {
                exit_code != 0 && max_retries.is_none_or(|most| restarts < most)
            }
        }
    }

    /// Whether a container that ran once and does not run now is brought back when the system starts.
    #[must_use]
    pub fn comes_back(self, exit_code: u8, stopped_by_user: bool) -> bool {
        match self {
            Self::Always => true,
            Self::No => false,
            Self::UnlessStopped => !stopped_by_user,
            Self::OnFailure { .. } => !stopped_by_user && exit_code != 0,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnFailure {
                max_retries: Some(retries),
            } => write!(f, "on-failure:{retries}"),
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_docker_spells_them() {
        for text in [
            "no",
            "always",
            "unless-stopped",
            "on-failure",
            "on-failure:3",
        ] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        assert_eq!(
            "on-failure:0".parse(),
            "on-failure".parse::<RestartPolicy>()
        );
        for bad in ["never", "always:3", "on-failure:x", "on-failure:-1", "no:1"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn policy_says_who_is_started_again() {
        let limited = RestartPolicy::OnFailure {
            max_retries: Some(2),
        };
        let cases = [
            (RestartPolicy::No, 1, 0, false),
            (RestartPolicy::Always, 0, 99, true),
            (RestartPolicy::UnlessStopped, 0, 99, true),
            (limited, 1, 1, true),
            (limited, 1, 2, false),
            (limited, 0, 0, false),
        ];
        for (policy, code, restarts, wanted) in cases {
            assert_eq!(policy.wants_restart(code, restarts), wanted, "{policy}");
        }
    }

    #[test]
    fn after_a_reboot_only_always_brings_back_what_was_stopped() {
        let failing = RestartPolicy::OnFailure { max_retries: None };
        assert!(RestartPolicy::Always.comes_back(0, true));
        assert!(!RestartPolicy::UnlessStopped.comes_back(0, true));
        assert!(RestartPolicy::UnlessStopped.comes_back(0, false));
        assert!(failing.comes_back(255, false) && !failing.comes_back(0, false));
        assert!(!RestartPolicy::No.comes_back(255, false));
    }
}

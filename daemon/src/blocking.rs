//! The engine blocks: its operations go whole to other threads, so many at once and not more. Once
//! begun they run to their end, whether the client waits or not.

use std::sync::Arc;

use engine::Engine;
use tokio::sync::{Semaphore, oneshot};

use crate::daemon::Daemon;
use crate::error::ApiError;

/// How many operations run at once; the others wait.
pub(crate) const OPERATIONS: usize = 32;

/// How many threads serve clients that follow something; a further one is refused.
pub(crate) const FOLLOWERS: usize = 384;

/// All threads that block: operations, followers, and some to spare.
pub(crate) const THREADS: usize = OPERATIONS + FOLLOWERS + 32;

/// What limits both kinds.
#[derive(Debug)]
pub(crate) struct Limits {
    operations: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations: Arc::new(Semaphore::new(OPERATIONS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        }
    }
}

fn gone<E>(_: E) -> ApiError {
    ApiError::internal(
        "the operation has failed in a way that it should not have: see the daemon's log",
    )
}

impl Daemon {
    /// Runs an operation of the engine.
    pub(crate) async fn run<T, F>(self: &Arc<Self>, operation: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Engine) -> Result<T, ApiError> + Send + 'static,
    {
        let permit = self.limits.operations.clone().acquire_owned().await;
        let permit = permit.map_err(gone)?;
        let daemon = Arc::clone(self);
        let handle = tokio::task::spawn_blocking(move || {
            let result = operation(&daemon.engine);
            drop(permit);
            result
        });
        handle.await.map_err(gone)?
    }

    /// The same in a thread of its own, for an operation that gives its thread another mount
    /// namespace.
    pub(crate) async fn run_apart<T, F>(self: &Arc<Self>, operation: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Engine) -> Result<T, ApiError> + Send + 'static,
    {
        let permit = self.limits.operations.clone().acquire_owned().await;
        let permit = permit.map_err(gone)?;
        let daemon = Arc::clone(self);
        let (sender, receiver) = oneshot::channel();
        let handle = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("apart".to_owned())
            .spawn(move || {
                let _runtime = handle.enter();
                // Nobody waits when the client is gone.
                drop(sender.send(operation(&daemon.engine)));
                drop(permit);
            })
            .map_err(|error| ApiError::internal(format!("cannot start a thread: {error}")))?;
        receiver.await.map_err(gone)?
    }

    /// Runs something that goes on as long as a client wants it.
    pub(crate) fn follow(
        self: &Arc<Self>,
        follower: impl FnOnce(&Engine) + Send + 'static,
    ) -> Result<(), ApiError> {
        let permit = self.limits.followers.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            let text = "too many clients follow logs, events and statistics: try again later";
            ApiError::new(http::StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let daemon = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || {
            follower(&daemon.engine);
            drop(permit);
        }));
        Ok(())
    }
}

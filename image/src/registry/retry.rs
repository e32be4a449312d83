//! Asking again: when a registry is busy or a connection breaks, and never for ever.

use std::time::Duration;

use crate::error::ImageError;

/// How long to wait before each further attempt.
const BACK_OFF: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// The longest `Retry-After` that is honoured: who asks for more time is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How an attempt ended without a result.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another attempt may succeed.
    Transient {
        error: ImageError,
        /// How long the registry wants to be left alone.
        after: Option<Duration>,
    },
    /// Another attempt would end the same.
    Final(ImageError),
}

impl<E: Into<ImageError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Failure {
    /// What it is when there is no other attempt.
    pub(super) fn into_error(self) -> ImageError {
        match self {
            Self::Transient { error, .. } | Self::Final(error) => error,
        }
    }
}

/// The attempts that are left.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: usize,
}

impl Attempts {
    /// Waits before the next attempt, or gives the error when there is to be none.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<(), ImageError> {
        let (error, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient { error, after } => (error, after),
        };
        let Some(wait) = BACK_OFF.get(self.failed) else {
            return Err(error);
        };
        self.failed += 1;
        let wait = after.map_or(*wait, |after| after.max(*wait));
        if wait > MAX_RETRY_AFTER {
            return Err(error);
        }
        tracing::debug!(%error, ?wait, "asking the registry again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Begins the counting anew: the last attempt brought something.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }
}

/// Runs `attempt` until it succeeds, fails for good or has been tried four times.
pub(super) async fn with_retries<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, ImageError> {
    let mut attempts = Attempts::default();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) => attempts.wait(failure).await?,
        }
    }
}

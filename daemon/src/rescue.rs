//! Containers whose monitors were killed get others without waiting for somebody who looks at them.

use std::sync::Arc;
use std::time::Duration;

use engine::{EngineError, Rescued};
use tokio::sync::watch;

use crate::daemon::Daemon;
use crate::error::chain;

/// How often it is looked: 1,000 locks take some milliseconds.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Looks until the daemon ends.
pub(crate) async fn watch(daemon: Arc<Daemon>, mut ended: watch::Receiver<()>) {
    loop {
        // Both can be dropped: neither holds anything.
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = ended.changed() => return,
        }
        let rescued = daemon.run(|engine| Ok(engine.rescue_orphans()?)).await;
        match rescued {
            Ok(rescued) => rescued.iter().for_each(tell),
            Err(error) => tracing::warn!(error = error.message, "cannot look for killed monitors"),
        }
    }
}

fn tell(rescued: &Rescued) {
    let id = rescued.id.as_str();
    match &rescued.result {
        // One that goes with its end is gone.
        Ok(()) | Err(EngineError::NoSuchContainer(_)) => {
            tracing::warn!(container.id = id, "a monitor was killed");
        }
        Err(error) => {
            let error = chain(error);
            tracing::error!(container.id = id, error, "a container without a monitor");
        }
    }
}

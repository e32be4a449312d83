//! Options of commands that stand at a container's streams.

use clap::{ArgAction, Args};

use crate::attach::SignalProxy;
use crate::render::Usage;
use engine::{BadDetachKeys, DEFAULT_DETACH_KEYS, DetachKeys};

/// Options of a foreground program.
#[derive(Debug, Args)]
pub(crate) struct ForegroundArgs {
    /// Keys that leave the container's terminal and let it go on
    #[arg(long, default_value = DEFAULT_DETACH_KEYS, value_name = "KEYS")]
    detach_keys: String,
    /// Pass signals on to the container
    #[arg(
        long,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_name = "BOOL"
    )]
    sig_proxy: bool,
}

impl ForegroundArgs {
    /// `--detach-keys`.
    pub(crate) fn keys(&self) -> Result<DetachKeys, Usage> {
        detach_keys(&self.detach_keys)
    }

    /// `--sig-proxy`.
    pub(crate) fn proxy(&self) -> SignalProxy {
        if self.sig_proxy {
            SignalProxy::On
        } else {
            SignalProxy::Off
        }
    }
}

/// `--detach-keys`.
pub(crate) fn detach_keys(text: &str) -> Result<DetachKeys, Usage> {
    text.parse()
        .map_err(|error: BadDetachKeys| Usage(error.to_string()))
}

//! Instances: made for a request, kept for some, thrown away.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, sleep_until, timeout};
use wasmtime::component::GuestTaskId;
use wasmtime::{Engine, Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};

use super::epochs::{Epochs, Ticking};
use super::server::say;
use crate::host::context::Context;
use crate::host::outcome::Outcome;
use crate::link::Guest;
use crate::spec::HttpOptions;

/// How long an instance that may be used again waits for its next request.
const IDLE: Duration = Duration::from_secs(5);

/// Requests that one instance of WASI 0.3 answers at once.
const CONCURRENT_P3: usize = 16;

/// What instances are made of.
pub(super) struct Workers {
    engine: Engine,
    pre: ProxyPre<Guest>,
    context: Context,
    requests: usize,
    concurrent: usize,
    timeout: Duration,
    epochs: Epochs,
}

impl Workers {
    pub(super) fn new(
        engine: Engine,
        pre: ProxyPre<Guest>,
        context: Context,
        options: &HttpOptions,
        epochs: Epochs,
    ) -> Self {
        let requests = usize::try_from(options.requests_per_instance).unwrap_or(usize::MAX);
        let concurrent = match &pre {
            ProxyPre::P2(_) => 1,
            ProxyPre::P3(_) => CONCURRENT_P3,
        };
        Self {
            engine,
            pre,
            requests: requests.max(1),
            concurrent,
            timeout: Duration::from_millis(context.timeout_ms().unwrap_or(HttpOptions::TIMEOUT_MS)),
            context,
            epochs,
        }
    }

    /// How long one request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether each request gets an instance of its own, which then holds the request's permit.
    pub(super) fn is_fresh(&self) -> bool {
        self.requests == 1
    }
}

impl HandlerState for Workers {
    type StoreData = Guest;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Guest, Expiration, Worker>> {
        let ticking = self.epochs.keep();
        let mut store = self.context.store(&self.engine)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let proxy = timeout(self.timeout, self.pre.instantiate_async(&mut store)).await;
        let Ok(proxy) = proxy else {
            let text = "the instance was not ready in time";
            return Err(wasmtime::Error::msg(text));
        };
        Ok(Instance {
            store,
            proxy: proxy?,
            view: <Guest as WasiHttpView>::http,
            expiration: Expiration::new(self.timeout),
            state: Worker {
                requests: self.requests,
                concurrent: self.concurrent,
                timeout: self.timeout,
                permit: Mutex::new(None),
                _ticking: ticking,
            },
        })
    }
}

/// When an instance has had its time.
pub(super) struct Expiration {
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Expiration {
    fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            timer: Box::pin(sleep(timeout)),
        }
    }
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        state: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        let allowed = match state {
            WorkerStatus::Idle => IDLE,
            _ => self.timeout,
        };
        let deadline = tokio::time::Instant::from_std(start + allowed);
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx)
    }
}

/// One instance.
pub(super) struct Worker {
    requests: usize,
    concurrent: usize,
    timeout: Duration,
    /// Given back when the store is gone.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    _ticking: Ticking,
}

impl WorkerState for Worker {
    type StoreData = Guest;
    type RequestData = Option<OwnedSemaphorePermit>;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.requests {
            ShouldAccept::Never
        } else if concurrent >= self.concurrent {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, Guest>,
        permit: Option<OwnedSemaphorePermit>,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        if let (Some(permit), Ok(mut held)) = (permit, self.permit.lock()) {
            *held = Some(permit);
        }
        let deadline = tokio::time::Instant::now() + self.timeout;
        Box::pin(sleep_until(deadline))
    }

    fn drop(&self, store: Store<Guest>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result {
            say(Outcome::from_error(&error).message().trim_end());
        }
        drop(store);
    }
}

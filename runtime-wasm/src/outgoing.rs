//! Requests that a guest sends by `wasi:http`, under the container's network policy.

use std::future::Future;

use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::spec::NetworkGrant;

/// Decides about each request.
pub(crate) struct Outgoing {
    network: NetworkGrant,
}

impl Outgoing {
    pub(crate) fn new(network: NetworkGrant) -> Self {
        Self { network }
    }
}

/// What the library awaits while a response is read.
type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _transmission: Transmission,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Transmission)>> + Send> {
        use http_body_util::BodyExt;

        let network = self.network;
        Box::new(async move {
            if network == NetworkGrant::None {
                return Err(Error::HttpRequestDenied);
            }
            let (response, io) = wasmtime_wasi_http::default_send_request(request, options).await?;
            let io: Transmission = Box::new(io);
            Ok((response.map(BodyExt::boxed_unsync), io))
        })
    }
}

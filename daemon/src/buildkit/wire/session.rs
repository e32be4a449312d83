//! What the daemon asks a client for in its session: `session/*/*.proto`.

use prost::Message;

/// A chunk of a stream: files that go to the client, archives that come from it, an agent's bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BytesMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CredentialsRequest {
    #[prost(string, tag = "1")]
    pub(crate) host: String,
}

/// No `Debug` of prost's: it has a password.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct CredentialsResponse {
    #[prost(string, tag = "1")]
    pub(crate) username: String,
    #[prost(string, tag = "2")]
    pub(crate) secret: String,
}

impl std::fmt::Debug for CredentialsResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetSecretRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// No `Debug` of prost's: it is a secret.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct GetSecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
}

impl std::fmt::Debug for GetSecretResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckAgentRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

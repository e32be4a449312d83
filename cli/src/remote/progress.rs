//! What long operations of a daemon tell: one JSON object after another.

use std::io::{self, Write as _};

use anyhow::Context as _;
use bytes::BytesMut;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::render;

/// No object is longer.
const MAX_OBJECT: usize = 16 << 20;

/// Gives every object of an answer to `take`.
pub(crate) async fn objects(
    response: Response<Incoming>,
    mut take: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut body = response.into_body();
    let mut pending = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the connection to the daemon is broken")?;
        if let Ok(bytes) = frame.into_data() {
            pending.extend_from_slice(&bytes);
        }
        let mut stream = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
        let mut used = 0;
        loop {
            match stream.next() {
                Some(Ok(value)) => {
                    used = stream.byte_offset();
                    take(&value)?;
                }
                // The rest of it is still to come.
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => return Err(error).context("cannot read the daemon's answer"),
                None => break,
            }
        }
        drop(pending.split_to(used));
        if pending.len() > MAX_OBJECT {
            anyhow::bail!("cannot read the daemon's answer: an object is longer than 16 MiB");
        }
    }
    Ok(())
}

/// How much of an operation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Everything, on standard error.
    Progress,
    /// What a build prints, on standard output.
    Build,
    /// Nothing but errors.
    Nothing,
}

/// Follows an operation to its end; what it reports as an error is one. Gives the last `aux` object.
pub(crate) async fn follow(response: Response<Incoming>, shown: Shown) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    objects(response, |value| {
        if let Some(text) = value["errorDetail"]["message"]
            .as_str()
            .or(value["error"].as_str())
        {
            anyhow::bail!("{}", render::clean(text.trim_end()));
        }
        if !value["aux"].is_null() {
            last = value["aux"].clone();
        }
        match shown {
            Shown::Nothing => {}
            Shown::Build => {
                if let Some(text) = value["stream"].as_str() {
                    // The lines of the build's programs, as they come.
                    io::stdout().lock().write_all(text.as_bytes())?;
                }
                line(value);
            }
            Shown::Progress => line(value),
        }
        Ok(())
    })
    .await?;
    Ok(last)
}

/// A state, without the bars: one line each time that something begins or ends.
fn line(value: &Value) {
    let Some(status) = value["status"].as_str() else {
        return;
    };
    let is_part = value["progressDetail"]["current"].as_u64().is_some();
    if is_part {
        return;
    }
    match value["id"].as_str().filter(|id| !id.is_empty()) {
        Some(id) => render::line(&render::clean(&format!("{id}: {status}"))),
        None => render::line(&render::clean(status)),
    }
}

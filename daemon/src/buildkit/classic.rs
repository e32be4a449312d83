//! `POST /build` with `version=2`: how clients built with BuildKit before buildx. The context comes over
//! the session or in a request of its own; the answer has the steps as messages in base64.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::control::solve;
use super::frontend::DOCKERFILE;
use super::grpc::{Code, Status};
use super::wire::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest};
use crate::body::{self, BodyReader};
use crate::call::{Call, Reply, no_content, streamed};
use crate::error::ApiError;
use crate::query::Query;

/// The context comes over the session.
const SESSION: &str = "client-session";

/// The context comes in a request whose `buildid` begins like this.
pub(super) const UPLOAD: &str = "upload-request";

/// How long the request with the context and that of the build wait for each other.
const PATIENCE: Duration = Duration::from_secs(10);

/// An output, as clients write it.
#[derive(Debug, Deserialize)]
struct Output {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// Whether a request is one of BuildKit. Without a session, and with its context in its body, it is built
/// the classic way.
pub(crate) fn is_meant(query: &Query) -> bool {
    let has = |name: &str| query.get(name).is_some();
    query.get("version") == Some("2") && (has("session") || has("buildid"))
}

/// `POST /build?version=2`.
pub(crate) async fn build(call: Call) -> Reply {
    let upload = call.query.get("buildid").and_then(|id| {
        let id = id.strip_prefix(UPLOAD)?.strip_prefix(':')?;
        Some(id.to_owned())
    });
    if let Some(id) = upload {
        let uploads = &call.daemon.buildkit.uploads;
        uploads.give(id, call.body).await?;
        return no_content();
    }
    let request = request(&call.query)?;
    let daemon = call.daemon;
    let (sender, stream) = body::channel();
    tokio::spawn(async move {
        let name = request.reference.clone();
        let lines = Lines(sender.clone());
        let work = async {
            let (result, ()) = tokio::join!(solve(&daemon, request), async {
                let Ok(build) = daemon.buildkit.builds.get(&name).await else {
                    return;
                };
                let mut at = 0;
                while let Some(response) = build.board.next(&mut at).await {
                    let bytes = response.encode_to_vec();
                    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                    lines
                        .send(&json!({ "id": "moby.buildkit.trace", "aux": text }))
                        .await;
                }
            });
            match result {
                Ok(solved) => {
                    let id = solved.exporter_response.get("containerimage.digest");
                    if let Some(id) = id {
                        let aux = json!({ "id": "moby.image.id", "aux": { "ID": id } });
                        lines.send(&aux).await;
                    }
                }
                Err(status) => {
                    let message = status.message;
                    lines
                        .send(&json!({ "errorDetail": { "message": message }, "error": message }))
                        .await;
                }
            }
        };
        // A client that hangs up wants no image any more: the build is dropped.
        tokio::select! {
            () = work => {}
            () = sender.closed() => {}
        }
    });
    streamed("application/json", stream)
}

/// Lines of JSON.
struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    async fn send(&self, value: &Value) {
        let line = format!("{value}\r\n");
        // Who does not read any more is not told.
        drop(self.0.send(line.into()).await);
    }
}

/// The same build in the words of the newer protocol.
fn request(query: &Query) -> Result<SolveRequest, ApiError> {
    let session = query.get("session").unwrap_or_default().to_owned();
    if session.is_empty() {
        return Err(ApiError::bad("a build with BuildKit needs a session"));
    }
    let mut attrs = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(attrs.insert(name.to_owned(), value));
    match query.get("remote") {
        None | Some(SESSION) => {}
        Some(remote) => set("context", remote.to_owned()),
    }
    for (name, parameter) in [
        ("filename", "dockerfile"),
        ("target", "target"),
        ("platform", "platform"),
    ] {
        if let Some(value) = query.get(parameter).filter(|value| *value != ".") {
            set(name, value.to_owned());
        }
    }
    let mode = query.get("networkmode").unwrap_or_default();
    if !matches!(mode, "" | "default" | "bridge") {
        set("force-network-mode", mode.to_owned());
    }
    if query.is_set("nocache") {
        set("no-cache", String::new());
    }
    if query.is_set("pull") {
        set("image-resolve-mode", "pull".to_owned());
    }
    let hosts: Vec<&str> = query.all("extrahosts").flat_map(|l| l.split(',')).collect();
    if !hosts.is_empty() {
        set("add-hosts", hosts.join(","));
    }
    let mut inline = false;
    let args: BTreeMap<String, Option<String>> = document(query, "buildargs")?.unwrap_or_default();
    for (name, value) in args {
        let Some(value) = value else { continue };
        inline |= name == "BUILDKIT_INLINE_CACHE" && value == "1";
        set(&format!("build-arg:{name}"), value);
    }
    let labels: BTreeMap<String, String> = document(query, "labels")?.unwrap_or_default();
    for (name, value) in labels {
        set(&format!("label:{name}"), value);
    }
    let caches: Vec<String> = document(query, "cachefrom")?.unwrap_or_default();
    if !caches.is_empty() {
        set("cache-from", caches.join(","));
    }
    let reference = query.get("buildid").unwrap_or(&session).to_owned();
    Ok(SolveRequest {
        reference,
        frontend: DOCKERFILE.to_owned(),
        frontend_attrs: attrs,
        exporters: exporters(query)?,
        cache: Some(CacheOptions {
            exports: inline
                .then(|| CacheOptionsEntry {
                    kind: "inline".to_owned(),
                    ..CacheOptionsEntry::default()
                })
                .into_iter()
                .collect(),
            ..CacheOptions::default()
        }),
        session,
        ..SolveRequest::default()
    })
}

/// Where the result goes: into the store when nothing is said.
fn exporters(query: &Query) -> Result<Vec<Exporter>, ApiError> {
    let outputs: Vec<Output> = document(query, "outputs")?.unwrap_or_default();
    let names: Vec<&str> = query.all("t").filter(|name| !name.is_empty()).collect();
    let mut exporters: Vec<Exporter> = outputs
        .into_iter()
        .filter(|output| output.kind != "cacheonly")
        .map(|output| Exporter {
            kind: output.kind,
            attrs: output.attrs.unwrap_or_default(),
        })
        .collect();
    if exporters.is_empty() && query.get("outputs").is_none_or(|text| text == "null") {
        exporters.push(Exporter {
            kind: "moby".to_owned(),
            ..Exporter::default()
        });
    }
    for exporter in &mut exporters {
        if super::frontend::is_image(&exporter.kind) && !names.is_empty() {
            exporter.attrs.insert("name".to_owned(), names.join(","));
        }
    }
    Ok(exporters)
}

/// A parameter that is JSON.
fn document<T: serde::de::DeserializeOwned>(
    query: &Query,
    name: &str,
) -> Result<Option<T>, ApiError> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map_err(|error| ApiError::bad(format!("invalid {name} '{text}': {error}")))
}

/// A context that has come, and who waits until it is read.
struct Upload {
    reader: BodyReader,
    done: oneshot::Sender<()>,
}

/// Contexts that come in requests of their own, by build.
#[derive(Default)]
pub(crate) struct Uploads {
    waiting: Mutex<BTreeMap<String, Upload>>,
    come: Notify,
}

impl Uploads {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Upload>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers a context to its build, and waits until that has read it.
    async fn give(&self, id: String, body: hyper::body::Incoming) -> Result<(), ApiError> {
        let (done, read) = oneshot::channel();
        let upload = Upload {
            reader: BodyReader::new(body),
            done,
        };
        let _before = self.lock().insert(id.clone(), upload);
        self.come.notify_waiters();
        let taken = async {
            while self.lock().contains_key(&id) {
                // Taking notifies as coming does.
                let mut come = std::pin::pin!(self.come.notified());
                come.as_mut().enable();
                if self.lock().contains_key(&id) {
                    come.await;
                }
            }
        };
        if timeout(PATIENCE, taken).await.is_err() {
            self.lock().remove(&id);
            return Err(ApiError::not_found(format!(
                "no build {id} wants a context"
            )));
        }
        // The build has ended when the other side is gone.
        drop(read.await);
        Ok(())
    }

    /// Takes the context of a build.
    pub(super) async fn take(&self, id: &str) -> Result<Taken, Status> {
        let find = async {
            loop {
                let mut come = std::pin::pin!(self.come.notified());
                come.as_mut().enable();
                if let Some(upload) = self.lock().remove(id) {
                    self.come.notify_waiters();
                    return upload;
                }
                come.await;
            }
        };
        let upload = timeout(PATIENCE, find).await.map_err(|_| {
            Status::new(
                Code::NotFound,
                format!("the context of build {id} did not come"),
            )
        })?;
        Ok(Taken {
            reader: upload.reader,
            _done: upload.done,
        })
    }
}

/// A context that is read. Dropped, its request is answered.
pub(super) struct Taken {
    reader: BodyReader,
    _done: oneshot::Sender<()>,
}

impl Read for Taken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_becomes_a_request_of_the_newer_protocol() {
        let query = Query::parse(
            "version=2&session=s&buildid=b&remote=client-session&t=a%3A1&t=b&nocache=1&target=x\
             &buildargs=%7B%22V%22%3A%227%22%7D&labels=%7B%22l%22%3A%22m%22%7D&networkmode=default\
             &cachefrom=%5B%22c%22%5D&dockerfile=D",
        );
        let request = request(&query).unwrap();
        assert_eq!(request.reference, "b");
        assert_eq!(request.session, "s");
        let attrs = &request.frontend_attrs;
        assert!(!attrs.contains_key("context") && !attrs.contains_key("force-network-mode"));
        for (name, value) in [
            ("build-arg:V", "7"),
            ("label:l", "m"),
            ("cache-from", "c"),
            ("filename", "D"),
            ("no-cache", ""),
            ("target", "x"),
        ] {
            assert_eq!(attrs[name], value, "{name}");
        }
        assert_eq!(request.exporters[0].kind, "moby");
        assert_eq!(request.exporters[0].attrs["name"], "a:1,b");
    }

    #[test]
    fn outputs_replace_the_store() {
        let text = "session=s&outputs=%5B%7B%22Type%22%3A%22local%22%2C%22Attrs%22%3A%7B%7D%7D%5D";
        let found = request(&Query::parse(text)).unwrap().exporters;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, "local");
        let text = "session=s&outputs=%5B%7B%22Type%22%3A%22cacheonly%22%7D%5D";
        assert_eq!(request(&Query::parse(text)).unwrap().exporters, []);
        assert!(request(&Query::parse("version=2")).is_err());
    }
}

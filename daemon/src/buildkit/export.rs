//! Where the result of a build goes: the store, registries, and over the session the client's files.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use builder::{Built, BuiltImage};
use image::{Reference, SaveOptions};
use serde_json::json;

use super::board::{Blobs, Ended, Step};
use super::client::{FILE_SEND, FileSink};
use super::frontend::names;
use super::grpc::{Status, decode};
use super::send::{Reaction, SendError, Sender, content};
use super::solve::{Job, Solved, credentials, failed};
use super::wire::control::Exporter;
use super::wire::files::{Packet, kind};
use crate::error::chain;

const DIGEST: &str = "containerimage.digest";
const CONFIG_DIGEST: &str = "containerimage.config.digest";
const DESCRIPTOR: &str = "containerimage.descriptor";
const NAME: &str = "image.name";

/// What the client is told of the results.
type Told = BTreeMap<String, String>;

impl Job<'_> {
    /// Brings the result to where it is wanted.
    pub(super) fn export(&self, solved: &Solved) -> Result<Told, Status> {
        let mut told = Told::new();
        for (name, value) in &solved.metadata {
            told.insert(name.clone(), String::from_utf8_lossy(value).into_owned());
        }
        let exporters = self.request.all_exporters();
        if exporters.is_empty() {
            return Ok(told);
        }
        let built = solved
            .built
            .as_ref()
            .ok_or_else(|| Status::invalid("there is no result to export"))?;
        for (number, exporter) in exporters.iter().enumerate() {
            let what = match exporter.kind.as_str() {
                "moby" | "image" => "image",
                "local" => "client directory",
                "tar" => "client tarball",
                "oci" | "docker" => "image archive",
                other => {
                    return Err(Status::unimplemented(format!(
                        "cannot export to `{other}`: there are image, local, tar, oci and docker"
                    )));
                }
            };
            let step = self.board.begin(&format!("exporting to {what}"));
            match self.one(built, number, exporter, &step, &mut told) {
                Ok(()) => step.done(),
                Err(error) => {
                    step.failed(&error.message);
                    return Err(error);
                }
            }
        }
        Ok(told)
    }

    fn one(
        &self,
        built: &Built,
        number: usize,
        exporter: &Exporter,
        step: &Step,
        told: &mut Told,
    ) -> Result<(), Status> {
        match exporter.kind.as_str() {
            "local" => self.local(built, number, step),
            "tar" => {
                let image = single(built, "a tar archive")?;
                let mut sink = self.client.file(number, &[])?;
                let written = builder::export_tar(&image.layers, &mut sink);
                finish(sink, step, written.map_err(|error| failed(&error)))
            }
            "oci" | "docker" => {
                tell(built, exporter, told);
                self.archive(built, number, exporter, step, told)
            }
            _ => {
                tell(built, exporter, told);
                self.image(built, exporter, step, told)
            }
        }
    }

    /// The image is in the store already, with its names: the builder has put it there.
    fn image(
        &self,
        built: &Built,
        exporter: &Exporter,
        step: &Step,
        told: &mut Told,
    ) -> Result<(), Status> {
        let is_set = |key: &str| exporter.attrs.get(key).is_some_and(|value| value == "true");
        if is_set("push-by-digest") {
            return Err(Status::unimplemented("push-by-digest is not supported"));
        }
        step.part(&format!("writing image {}", id(built)), 0, 0, Ended::Yes);
        for name in names(exporter) {
            step.part(&format!("naming to {name}"), 0, 0, Ended::Yes);
        }
        if !is_set("push") {
            return Ok(());
        }
        for name in names(exporter) {
            let target = Reference::parse(name).map_err(|e| Status::invalid(e.to_string()))?;
            let mut options = credentials(self.client, self.registry, &target)?;
            if is_set("registry.insecure") {
                options.insecure.push(target.registry().to_owned());
            }
            let push = self.board.begin(&format!("pushing {target}"));
            let store = self.engine.store();
            match store.push(name, &target, None, &options, &Blobs::of(&push)) {
                Ok(pushed) => {
                    // Who pushes wants to know what the registry calls it.
                    told.insert(DIGEST.to_owned(), pushed.top.digest.to_string());
                    push.done();
                }
                Err(error) => {
                    let text = chain(&error);
                    push.failed(&text);
                    return Err(Status::new(super::grpc::Code::Unknown, text));
                }
            }
        }
        Ok(())
    }

    fn archive(
        &self,
        built: &Built,
        number: usize,
        exporter: &Exporter,
        step: &Step,
        told: &Told,
    ) -> Result<(), Status> {
        if exporter.attrs.get("tar").is_some_and(|tar| tar == "false") {
            return Err(Status::unimplemented(
                "tar=false is not supported: the client gets an archive",
            ));
        }
        let mut texts: Vec<String> = names(exporter).map(str::to_owned).collect();
        if texts.is_empty() {
            texts.push(id(built));
        }
        let about = told.iter().map(|(key, value)| (key.clone(), value.clone()));
        let about: Vec<(String, String)> = about
            .filter(|(_, value)| value.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
            .collect();
        let mut sink = self.client.file(number, &about)?;
        let store = self.engine.store();
        let saved = store.save(&texts, &SaveOptions::default(), &mut sink);
        let saved = saved.map_err(|error| Status::new(super::grpc::Code::Unknown, chain(&error)));
        finish(sink, step, saved)
    }

    fn local(&self, built: &Built, number: usize, step: &Step) -> Result<(), Status> {
        let failed_io =
            |error: std::io::Error| Status::internal(format!("cannot make the files: {error}"));
        let dir = tempfile::Builder::new()
            .prefix("result-")
            .tempdir_in(self.engine.layout().tmp())
            .map_err(failed_io)?;
        let files = dir.path().join("files");
        for image in &built.images {
            let target = match built.images.len() {
                1 => files.clone(),
                _ => files.join(image.platform.to_string().replace('/', "_")),
            };
            std::fs::create_dir_all(&files).map_err(failed_io)?;
            builder::export_directory(&image.layers, &target).map_err(|error| failed(&error))?;
        }
        let sent = self.send_tree(&files, number, step);
        sent.map_err(|error| match error {
            SendError::Status(status) => status,
            error => Status::new(super::grpc::Code::Unknown, chain(&error)),
        })
    }

    fn send_tree(&self, root: &Path, number: usize, step: &Step) -> Result<(), SendError> {
        let metadata = [(
            "buildkit-attachable-exporter-id".to_owned(),
            number.to_string(),
        )];
        let client = self.client;
        let call = client.session().call(FILE_SEND, &metadata);
        let (mut out, mut back) = client.wait(call)?.split();
        let mut bytes = 0;
        let mut sender = Sender::new(root);
        let mut send = |packet: Packet| -> Result<(), SendError> {
            bytes += packet.data.len() as u64;
            Ok(client.wait(out.send(&packet))?)
        };
        sender.list(&mut send)?;
        loop {
            let next = client.wait(back.next())?;
            let packet: Packet = decode(next.ok_or(SendError::Protocol("it ended too early"))?)?;
            match sender.take(&packet)? {
                Reaction::File(id, file) => content(id, file, &mut send)?,
                Reaction::End => break,
            }
        }
        send(Packet {
            kind: kind::END,
            ..Packet::default()
        })?;
        step.part("copying files", bytes, bytes, Ended::Yes);
        // Whether it could be closed is in what comes back.
        drop(out.close());
        while client.wait(back.next())?.is_some() {}
        Ok(())
    }
}

/// Ends a file; an error of the client's counts for more than that of who wrote.
fn finish(sink: FileSink, step: &Step, written: Result<(), Status>) -> Result<(), Status> {
    if let Err(error) = written {
        return Err(sink.failure().cloned().unwrap_or(error));
    }
    sink.finish()?;
    step.part("sending tarball", 0, 0, Ended::Yes);
    Ok(())
}

fn single<'b>(built: &'b Built, what: &str) -> Result<&'b BuiltImage, Status> {
    match built.images.as_slice() {
        [one] => Ok(one),
        _ => Err(Status::invalid(format!(
            "cannot write {what}: it holds one platform"
        ))),
    }
}

/// The image's identifier, as `inspect` has it.
fn id(built: &Built) -> String {
    match built.images.as_slice() {
        [one] => one.id.to_string(),
        _ => built.top.digest.to_string(),
    }
}

/// What clients print and keep. The digest is the identifier, as with Docker's own store: it is what
/// other requests know the image by.
fn tell(built: &Built, exporter: &Exporter, told: &mut Told) {
    let descriptor = json!({
        "mediaType": built.top.media_type,
        "digest": built.top.digest.to_string(),
        "size": built.top.size,
    });
    let descriptor = base64::engine::general_purpose::STANDARD.encode(descriptor.to_string());
    told.insert(DIGEST.to_owned(), id(built));
    told.insert(CONFIG_DIGEST.to_owned(), id(built));
    told.insert(DESCRIPTOR.to_owned(), descriptor);
    let names: Vec<&str> = names(exporter).collect();
    if !names.is_empty() {
        told.insert(NAME.to_owned(), names.join(","));
    }
}

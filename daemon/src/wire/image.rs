//! Images in responses.

use image::{HistoryStep, Image, ImageSummary, Reference, Removed};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::version::{ApiVersion, NO_LEGACY};
use crate::wire::times;

/// Names with tags, and with digests.
pub(crate) fn names(names: &[Reference], digest: &str) -> (Vec<String>, Vec<String>) {
    let tags = names.iter().filter(|name| name.tag().is_some());
    let mut digests: Vec<String> = names
        .iter()
        .map(|name| format!("{}@{digest}", name.familiar_name()))
        .collect();
    digests.sort();
    digests.dedup();
    (tags.map(Reference::familiar).collect(), digests)
}

/// An image of the list.
pub(crate) fn summary(image: &ImageSummary, config: Option<&Image>, users: i64) -> Value {
    let (tags, digests) = names(&image.names, &image.manifest_digest.to_string());
    json!({
        "Id": image.id.to_string(),
        "ParentId": "",
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": image.created.as_deref().map_or(0, times::seconds),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": config.map(|image| &image.config.config.labels),
        "Containers": users,
    })
}

/// Everything about an image.
pub(crate) fn inspect(
    image: &Image,
    own_names: &[Reference],
    summary: Option<&ImageSummary>,
    version: ApiVersion,
) -> Result<Value, ApiError> {
    let digest = image.index_digest.unwrap_or(image.manifest_digest);
    let (tags, digests) = names(own_names, &digest.to_string());
    let config = &image.config;
    let last = config.history.last();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": last.and_then(|step| step.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "DockerVersion": "",
        "Author": config.author.clone().unwrap_or_default(),
        "Config": run_config(image, version)?,
        "Architecture": image.platform.architecture(),
        "Variant": image.platform.variant().unwrap_or_default(),
        "Os": image.platform.os(),
        "Size": summary.map_or(0, |summary| summary.size),
        "GraphDriver": { "Name": "overlay2", "Data": {} },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": summary.map(|summary| summary.added.clone()) },
    }))
}

/// Earlier versions of the API show these fields also when they are empty.
fn run_config(image: &Image, version: ApiVersion) -> Result<Value, ApiError> {
    let own = serde_json::to_value(&image.config.config)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    if version >= NO_LEGACY {
        return Ok(own);
    }
    let mut base = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false,
        "AttachStdout": false, "AttachStderr": false, "Tty": false, "OpenStdin": false,
        "StdinOnce": false, "Env": [], "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    if let (Value::Object(base), Value::Object(own)) = (&mut base, own) {
        base.extend(own);
    }
    Ok(base)
}

/// A step of an image's history; `top` is of the whole image.
pub(crate) fn step(step: &HistoryStep, top: Option<(&Image, &[Reference])>) -> Value {
    let tags = top.map(|(image, names)| self::names(names, &image.id.to_string()).0);
    json!({
        "Id": top.map_or("<missing>".to_owned(), |(image, _)| image.id.to_string()),
        "Created": step.created.as_deref().map_or(0, times::seconds),
        "CreatedBy": step.created_by,
        "Tags": tags.filter(|tags| !tags.is_empty()),
        "Size": step.size,
        "Comment": step.comment,
    })
}

/// What a removal has removed.
pub(crate) fn removed(removed: &[Removed]) -> Vec<Value> {
    let one = |one: &Removed| match one {
        Removed::Untagged(name) => json!({ "Untagged": name.familiar() }),
        Removed::Deleted(id) => json!({ "Deleted": id.to_string() }),
    };
    removed.iter().map(one).collect()
}

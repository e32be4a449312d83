//! `state`: what a container is and does (runtime-spec v1.2 `runtime.md#state`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Container, OciError, Status};

/// The state of a container, as the command line prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification that it was made from.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// Its init; 0 when it has ended.
    pub pid: i32,
    /// Its state.
    pub status: Status,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// When it was created, in RFC 3339.
    pub created: String,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who made it.
    pub owner: String,
}

/// The state of a container.
///
/// # Errors
/// When its specification cannot be read.
pub fn state(container: &Container) -> Result<State, OciError> {
    let record = &container.record;
    let annotations = container.spec()?.annotations().clone();
    let status = container.status();
    Ok(State {
        oci_version: record.oci_version.clone(),
        id: record.id.clone(),
        pid: container.pid().unwrap_or(0),
        status,
        bundle: record.bundle.clone(),
        rootfs: record.rootfs.clone(),
        created: record.created.clone(),
        annotations: annotations.into_iter().flatten().collect(),
        owner: user_name(record.owner),
    })
}

/// The user's name where `/etc/passwd` has one, else the number.
fn user_name(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

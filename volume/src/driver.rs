//! What a volume driver can be asked.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Address, DriverError, Plugins, http};

/// A driver that lives says so at once.
const ACTIVATE_TIMEOUT: Duration = Duration::from_secs(5);
/// Whoever removes a volume holds the lock of all of them meanwhile.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Storage of a cloud is attached in its own time; Docker waits as long.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(120);

/// What plugins call this kind of driver.
const KIND: &str = "VolumeDriver";

/// A volume as its driver knows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DriverVolume {
    /// Its name.
    pub name: String,
    /// Where it is mounted, when it is.
    #[serde(default)]
    pub mountpoint: String,
    /// RFC 3339, where the driver tells it.
    #[serde(default)]
    pub created_at: Option<String>,
    /// What else the driver tells.
    #[serde(default)]
    pub status: Option<Value>,
}

/// An answer; each has some of these.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    err: Option<String>,
    implements: Option<Vec<String>>,
    mountpoint: Option<String>,
    volume: Option<DriverVolume>,
    volumes: Option<Vec<DriverVolume>>,
    capabilities: Option<Capabilities>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Capabilities {
    scope: String,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            scope: "local".to_owned(),
        }
    }
}

/// A volume driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    name: String,
    address: Address,
}

impl Driver {
    /// Finds a driver, and asks it whether it is one.
    ///
    /// # Errors
    /// When there is none, it does not answer, or is something else.
    pub fn open(plugins: &Plugins, name: &str) -> Result<Self, DriverError> {
        let driver = Self {
            name: name.to_owned(),
            address: plugins.find(name)?,
        };
        let (_, answer) = driver.post("Plugin.Activate", &Value::Null, ACTIVATE_TIMEOUT)?;
        let implements = answer.implements.unwrap_or_default();
        if !implements.iter().any(|kind| kind == KIND) {
            return Err(DriverError::BadPlugin {
                name: driver.name,
                why: format!("it is no volume driver but {}", implements.join(", ")),
            });
        }
        Ok(driver)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn post(
        &self,
        call: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<(u16, Answer), DriverError> {
        let bytes = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let dead = |source: io::Error| DriverError::Dead {
            name: self.name.clone(),
            address: self.address.to_string(),
            source,
        };
        let (status, text) = http::post(&self.address, call, &bytes, patience).map_err(dead)?;
        let answer = match serde_json::from_slice(&text) {
            Ok(answer) => answer,
            // What fails may say why in plain words.
            Err(_) if status != 200 => Answer {
                err: Some(String::from_utf8_lossy(&text).trim().to_owned()),
                ..Answer::default()
            },
            Err(error) => return Err(dead(error.into())),
        };
        Ok((status, answer))
    }

    /// Asks something about a volume. `Err` of the answer is a refusal.
    fn call(
        &self,
        what: &'static str,
        call: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<Answer, DriverError> {
        let (status, answer) = self.post(&format!("{KIND}.{call}"), body, patience)?;
        let why = answer.err.clone().filter(|why| !why.is_empty());
        if status == 200 && why.is_none() {
            return Ok(answer);
        }
        Err(DriverError::Refused {
            name: self.name.clone(),
            what,
            volume: body["Name"].as_str().unwrap_or_default().to_owned(),
            why: why
                .unwrap_or_else(|| format!("status {status}"))
                .replace('\n', "; "),
        })
    }

    /// Makes a volume; one that is there stays.
    ///
    /// # Errors
    /// When the driver is dead or says no.
    pub fn create(
        &self,
        volume: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<(), DriverError> {
        let body = json!({ "Name": volume, "Opts": options });
        self.call("create", "Create", &body, MOUNT_TIMEOUT)?;
        Ok(())
    }

    /// Removes a volume.
    ///
    /// # Errors
    /// When the driver is dead or says no.
    pub fn remove(&self, volume: &str) -> Result<(), DriverError> {
        let body = json!({ "Name": volume });
        self.call("remove", "Remove", &body, CALL_TIMEOUT)?;
        Ok(())
    }

    /// Mounts a volume for the user `id`, and gives where.
    ///
    /// # Errors
    /// When the driver is dead, says no, or names no absolute path.
    pub fn mount(&self, volume: &str, id: &str) -> Result<PathBuf, DriverError> {
        let body = json!({ "Name": volume, "ID": id });
        let answer = self.call("mount", "Mount", &body, MOUNT_TIMEOUT)?;
        let path = PathBuf::from(answer.mountpoint.unwrap_or_default());
        if path.is_absolute() {
            return Ok(path);
        }
        Err(DriverError::Refused {
            name: self.name.clone(),
            what: "mount",
            volume: volume.to_owned(),
            why: format!("it is at `{}`, which is no absolute path", path.display()),
        })
    }

    /// The user `id` no longer needs a volume.
    ///
    /// # Errors
    /// When the driver is dead or says no.
    pub fn unmount(&self, volume: &str, id: &str) -> Result<(), DriverError> {
        let body = json!({ "Name": volume, "ID": id });
        self.call("unmount", "Unmount", &body, CALL_TIMEOUT)?;
        Ok(())
    }

    /// Where a volume is mounted; nothing while it is not.
    ///
    /// # Errors
    /// When the driver is dead or says no.
    pub fn path(&self, volume: &str) -> Result<PathBuf, DriverError> {
        let body = json!({ "Name": volume });
        let answer = self.call("find", "Path", &body, CALL_TIMEOUT)?;
        Ok(answer.mountpoint.unwrap_or_default().into())
    }

    /// A volume.
    ///
    /// # Errors
    /// When the driver is dead or has no such volume.
    pub fn get(&self, volume: &str) -> Result<DriverVolume, DriverError> {
        let body = json!({ "Name": volume });
        let answer = self.call("find", "Get", &body, CALL_TIMEOUT)?;
        answer.volume.ok_or_else(|| DriverError::Refused {
            name: self.name.clone(),
            what: "find",
            volume: volume.to_owned(),
            why: "nothing".to_owned(),
        })
    }

    /// All its volumes.
    ///
    /// # Errors
    /// When the driver is dead or says no.
    pub fn list(&self) -> Result<Vec<DriverVolume>, DriverError> {
        let answer = self.call("list", "List", &json!({}), ACTIVATE_TIMEOUT)?;
        Ok(answer.volumes.unwrap_or_default())
    }

    /// Whether its volumes are this host's (`local`) or are seen from others too (`global`).
    ///
    /// # Errors
    /// When the driver is dead. One that does not know the question is `local`.
    pub fn scope(&self) -> Result<String, DriverError> {
        let call = format!("{KIND}.Capabilities");
        let (_, answer) = self.post(&call, &json!({}), ACTIVATE_TIMEOUT)?;
        Ok(answer.capabilities.unwrap_or_default().scope)
    }
}

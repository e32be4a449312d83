//! A volume driver over Docker's plugin protocol: directories below one of its own, and a list of what
//! it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// How a driver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    Good,
    /// It takes callers and says nothing.
    Silent,
    /// It refuses every mount.
    RefusesMounts,
    /// It is no volume driver.
    OtherKind,
}

/// What the driver has, and what it was asked.
#[derive(Debug, Default)]
struct Inner {
    volumes: BTreeMap<String, Value>,
    /// Users of each volume's mount.
    mounts: BTreeMap<String, Vec<String>>,
    calls: Vec<String>,
}

/// A driver that serves until the test ends.
#[derive(Debug)]
pub struct VolumeDriver {
    dir: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

impl VolumeDriver {
    /// Listens at `socket`; volumes are directories below `dir`.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn start(socket: &Path, dir: &Path, behaviour: Behaviour) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let driver = Self {
            dir: dir.to_path_buf(),
            inner: Arc::default(),
        };
        let (dir, inner) = (driver.dir.clone(), Arc::clone(&driver.inner));
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().flatten() {
                if behaviour == Behaviour::Silent {
                    kept.push(stream);
                } else {
                    // A caller that is gone wants no answer.
                    drop(serve(&stream, &dir, &inner, behaviour));
                }
            }
        });
        driver
    }

    /// What it was asked, in order: `Mount name`.
    ///
    /// # Panics
    /// When the driver has panicked.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// How many users the mount of a volume has.
    ///
    /// # Panics
    /// When the driver has panicked.
    #[must_use]
    pub fn users(&self, volume: &str) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.mounts.get(volume).map_or(0, Vec::len)
    }

    /// Where a volume's files are.
    #[must_use]
    pub fn path(&self, volume: &str) -> PathBuf {
        self.dir.join(volume)
    }
}

fn serve(
    mut stream: &UnixStream,
    dir: &Path,
    inner: &Mutex<Inner>,
    behaviour: Behaviour,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let call = path.rsplit(['/', '.']).next().unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = answer(call, &body, dir, &mut inner.lock().unwrap(), behaviour).to_string();
    let length = answer.len();
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}"
    )
}

fn answer(call: &str, body: &Value, dir: &Path, inner: &mut Inner, behaviour: Behaviour) -> Value {
    let name = body["Name"].as_str().unwrap_or_default().to_owned();
    let id = body["ID"].as_str().unwrap_or_default().to_owned();
    inner.calls.push(format!("{call} {name}").trim().to_owned());
    let path = dir.join(&name);
    let is_mounted = |inner: &Inner| inner.mounts.get(&name).is_some_and(|ids| !ids.is_empty());
    let shown = |inner: &Inner, name: &str| {
        let mounted = inner.mounts.get(name).is_some_and(|ids| !ids.is_empty());
        let at = if mounted {
            dir.join(name)
        } else {
            PathBuf::new()
        };
        json!({ "Name": name, "Mountpoint": at, "Status": { "options": inner.volumes[name] } })
    };
    match call {
        "Activate" if behaviour == Behaviour::OtherKind => json!({ "Implements": ["authz"] }),
        "Activate" => json!({ "Implements": ["VolumeDriver"] }),
        "Capabilities" => json!({ "Capabilities": { "Scope": "global" } }),
        "Create" => {
            std::fs::create_dir_all(&path).unwrap();
            inner.volumes.insert(name, body["Opts"].clone());
            json!({ "Err": "" })
        }
        "List" => {
            let all: Vec<Value> = inner
                .volumes
                .keys()
                .map(|name| shown(inner, name))
                .collect();
            json!({ "Volumes": all, "Err": "" })
        }
        _ if !inner.volumes.contains_key(&name) => json!({ "Err": "no such volume here" }),
        "Mount" if behaviour == Behaviour::RefusesMounts => {
            json!({ "Err": "the storage\nis on fire" })
        }
        "Mount" => {
            inner.mounts.entry(name).or_default().push(id);
            json!({ "Mountpoint": path, "Err": "" })
        }
        "Unmount" => {
            let ids = inner.mounts.entry(name).or_default();
            let before = ids.len();
            ids.retain(|own| *own != id);
            let err = if ids.len() == before {
                "nobody of this id"
            } else {
                ""
            };
            json!({ "Err": err })
        }
        "Path" if is_mounted(inner) => json!({ "Mountpoint": path, "Err": "" }),
        "Path" => json!({ "Mountpoint": "", "Err": "" }),
        "Get" => json!({ "Volume": shown(inner, &name), "Err": "" }),
        "Remove" => {
            inner.volumes.remove(&name);
            std::fs::remove_dir_all(&path).unwrap();
            json!({ "Err": "" })
        }
        other => json!({ "Err": format!("unknown call {other}") }),
    }
}

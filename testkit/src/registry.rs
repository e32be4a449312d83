//! A registry for tests.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{skip, write};

/// Where Debian's registry is.
pub const REGISTRY: &str = "/usr/bin/docker-registry";

/// Debian's registry, on loopback, until it is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Its address with the port.
    pub host: String,
}

impl Registry {
    /// Starts it with its storage in a directory; says so when that is not possible here.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(storage: &Path) -> Option<Self> {
        if !Path::new(REGISTRY).exists() {
            skip("needs docker-registry");
            return None;
        }
        fs::create_dir_all(storage).unwrap();
        let config = storage.with_extension("yml");
        write(
            &config,
            registry_configuration(storage, "127.0.0.1:0").as_bytes(),
        );
        let mut child = Command::new(REGISTRY)
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = log.find(|line| line.as_ref().unwrap().contains("listening on"));
        let line = line.unwrap().unwrap();
        let at = line.find("127.0.0.1:").unwrap();
        let is_host = |c: &char| c.is_ascii_digit() || ".:".contains(*c);
        let host: String = line[at..].chars().take_while(is_host).collect();
        // A full pipe would stop it.
        std::thread::spawn(move || log.count());
        Some(Self {
            child,
            host: host.trim_end_matches(['.', ':']).to_owned(),
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The configuration file of a registry.
#[must_use]
pub fn registry_configuration(storage: &Path, address: &str) -> String {
    let storage = storage.display();
    format!(
        "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: '{address}'}}\n\
         storage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
    )
}

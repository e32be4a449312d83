//! What the tests of images share: a registry, archives made byte by byte, trees that are compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Digest, Platform};
use testkit::Sandbox;
pub(crate) use testkit::{REGISTRY, Registry, registry_configuration as configuration};

pub(crate) const KETCH: &str = env!("CARGO_BIN_EXE_ketch");
/// Runs a program that must succeed; gives its output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?}: {text}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Runs `ketch` in the sandbox; it must succeed. Gives its output.
pub(crate) fn ketch(cx: &Sandbox, args: &[&str]) -> String {
    let done = cx.ketch(args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    done.stdout
}

/// Whether a program is there; says so when it is not.
pub(crate) fn needed(program: &str) -> Option<()> {
    if Command::new(program).arg("--version").output().is_ok() {
        return Some(());
    }
    testkit::skip(&format!("needs {program}"));
    None
}

/// What can be seen of files: path to attributes and content.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// Extended attributes that images have.
const XATTRS: [&str; 2] = ["user.a", "security.capability"];

pub(crate) fn tree(root: &Path) -> Tree {
    let mut seen = Tree::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let content = if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_file() {
            let time = meta.mtime();
            format!("{} links {time} {}", meta.nlink(), sha256(&path))
        } else if kind.is_char_device() || kind.is_block_device() {
            format!("device {}", meta.rdev())
        } else {
            String::new()
        };
        if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            todo.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let mut xattrs = String::new();
        for name in XATTRS {
            let mut value = [0; 256];
            if let Ok(length) = rustix::fs::lgetxattr(&path, name, &mut value) {
                xattrs.push_str(&format!(" {name}={:?}", &value[..length]));
            }
        }
        let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
        let line = format!("{mode:o} {uid}:{gid} {content}{xattrs}");
        seen.insert(path.strip_prefix(root).unwrap().to_path_buf(), line);
    }
    seen
}

pub(crate) fn sha256(path: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    Digest::of(&bytes).hex()
}

/// Bytes that do not compress, from a generator (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn bytes(&mut self, size: usize) -> Vec<u8> {
        let words = (0..size.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(size).collect()
    }
}

/// Writes an image with these layers, the lowest first, in Docker's form.
pub(crate) fn docker_archive(path: &Path, name: &str, layers: &[Vec<u8>]) {
    docker_archive_with(path, name, layers, "{\"Cmd\":[\"/x\"]}");
}

/// The same with the `config` of the image's config.
pub(crate) fn docker_archive_with(path: &Path, name: &str, layers: &[Vec<u8>], config: &str) {
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes).unwrap();
    };
    let (mut diff_ids, mut files) = (Vec::new(), Vec::new());
    for (at, tar) in layers.iter().enumerate() {
        diff_ids.push(format!("\"{}\"", Digest::of(tar)));
        let file = format!("{at}.tar");
        add(&file, tar);
        files.push(format!("\"{file}\""));
    }
    let config = format!(
        r#"{{"os":"linux","architecture":"{}","config":{config},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        Platform::host().architecture(),
        diff_ids.join(",")
    );
    add("config.json", config.as_bytes());
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":[{}]}}]"#,
        files.join(",")
    );
    add("manifest.json", manifest.as_bytes());
    archive.into_inner().unwrap();
}

//! Kernel modules in the order in which they can be loaded. What depends on what is read from the
//! modules themselves: a package has no `modules.dep`, which is made when it is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of `names` and of everything that they depend on, dependencies first. A name that is
/// no module is built into the kernel, or absent: the script will see.
pub(super) fn in_order(dir: &Path, names: &BTreeSet<String>) -> Vec<PathBuf> {
    let mut files = BTreeMap::new();
    collect(dir, &mut files);
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        visit(name, &files, &mut seen, &mut order);
    }
    order
}

fn visit(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<PathBuf>,
) {
    let name = normal(name);
    let Some(file) = files.get(&name) else {
        return;
    };
    if !seen.insert(name) {
        return;
    }
    for dependency in dependencies(&read(file)) {
        visit(&dependency, files, seen, order);
    }
    order.push(file.clone());
}

/// Names are spelt with `-` in files and with `_` in the kernel.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn collect(dir: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            collect(&path, files);
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((name, "ko" | "ko.xz")) = name.split_once('.') {
            files.insert(normal(name), path);
        }
    }
}

/// A module's bytes, decompressed.
pub(super) fn read(file: &Path) -> Vec<u8> {
    if file.extension().is_some_and(|end| end == "xz") {
        return Command::new("xz")
            .arg("-dc")
            .arg(file)
            .output()
            .unwrap()
            .stdout;
    }
    fs::read(file).unwrap()
}

/// `depends=a,b` and `softdep=pre: c` in the module's information, strings that end with NUL.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for text in module.split(|&byte| byte == 0) {
        let (list, separator) = if let Some(list) = text.strip_prefix(b"depends=") {
            (list, ',')
        } else if let Some(list) = text.strip_prefix(b"softdep=pre:") {
            (list, ' ')
        } else {
            continue;
        };
        let list = String::from_utf8_lossy(list).into_owned();
        let list = list.split("post:").next().unwrap_or_default();
        let parts = list.split(separator).map(str::trim);
        names.extend(parts.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        let module =
            b"\x7fELF\0license=GPL\0depends=virtio,virtio-ring\0softdep=pre: crc32c post: x\0";
        assert_eq!(dependencies(module), ["virtio", "virtio-ring", "crc32c"]);
        assert!(dependencies(b"depends=\0").is_empty());
    }
}

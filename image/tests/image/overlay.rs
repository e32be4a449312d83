//! The layers, mounted by the kernel, against what this crate says that they show. The mount is
//! detached: it is in nobody's tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::LayeredRoot;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::host::{Field, Host, Tar, chain};

fn mount(dirs: &[PathBuf]) -> OwnedFd {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for dir in dirs {
        fsconfig_set_string(&context, "lowerdir+", dir).unwrap();
    }
    fsconfig_set_flag(&context, "ro").unwrap();
    fsconfig_create(&context).unwrap();
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap()
}

/// Every path below `dir`, as the mount shows it.
fn walk(dir: &Path, base: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push(Path::new("/").join(path.strip_prefix(base).unwrap()));
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            walk(&path, base, found);
        }
    }
}

fn layers() -> Vec<Vec<u8>> {
    let tool = Field {
        path: b"bin/tool",
        mode: 0o4755,
        size: 4,
        ..Field::default()
    };
    let base = Tar::new()
        .dir("./", 0o755)
        .dir("tmp", 0o1777)
        .dir("bin", 0o755)
        .header(&tool)
        .body(b"tool")
        .file("etc/passwd", b"base")
        .file("etc/group", b"base")
        .file("var/log/a", b"a")
        .file("var/log/b", b"b")
        .file("swap/inner", b"x")
        .file("renewed/old", b"x")
        .symlink("lib", "usr/lib")
        .file("usr/lib/libc", b"libc");
    let middle = Tar::new()
        .file("etc/.wh.group", b"")
        .file("var/log/.wh..wh..opq", b"")
        .file("var/log/c", b"c")
        .file("swap", b"a file")
        .file(".wh.renewed", b"")
        .dir("renewed", 0o700)
        .file("renewed/new", b"x")
        .hardlink("bin/alias", "bin/tool")
        .hardlink("bin/hidden", "bin/tool");
    let top = Tar::new()
        .file("tmp/scratch", b"x")
        .file("bin/.wh.hidden", b"")
        .dir("swap", 0o711)
        .file("swap/outer", b"x")
        .file("etc/group", b"top");
    vec![base.end(), middle.end(), top.end()]
}

#[test]
fn layered_root_shows_what_the_kernel_shows() {
    let host = Host::new();
    let dirs = host.unpack(&layers()).unwrap();
    let mounted = mount(&dirs);
    let base = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd()));
    let root = LayeredRoot::new(dirs.clone());
    let mut paths = Vec::new();
    walk(&base, &base, &mut paths);
    assert!(paths.len() > 15);
    // And what some layer has, but the mount may not show.
    for dir in &dirs {
        walk(dir, dir, &mut paths);
    }
    for path in paths {
        let real = base.join(path.strip_prefix("/").unwrap());
        if fs::symlink_metadata(&real).is_ok_and(|meta| meta.is_symlink()) {
            continue;
        }
        match fs::symlink_metadata(&real) {
            Err(_) => assert!(root.lookup(&path).is_err(), "{}", path.display()),
            Ok(meta) => {
                let found = root.lookup(&path).unwrap();
                let ours = (found.mode, found.uid, found.gid);
                assert_eq!(
                    ours,
                    (meta.mode(), meta.uid(), meta.gid()),
                    "{}",
                    path.display()
                );
                if meta.is_file() {
                    let mut content = Vec::new();
                    File::open(&real)
                        .unwrap()
                        .read_to_end(&mut content)
                        .unwrap();
                    assert_eq!(root.read_bounded(&path, 99).unwrap(), content);
                }
            }
        }
    }
    assert_eq!(fs::read(base.join("bin/alias")).unwrap(), b"tool");
    assert_eq!(
        fs::metadata(base.join("tmp")).unwrap().mode() & 0o7777,
        0o1777
    );
    assert!(!base.join("renewed/old").exists());
    assert!(!base.join("bin/hidden").exists());
    assert!(!base.join("swap/inner").exists());
}

/// Kind, and content or link target, of everything in a tree.
fn facts(base: &Path) -> BTreeMap<PathBuf, String> {
    let mut paths = Vec::new();
    walk(base, base, &mut paths);
    let fact = |path: &PathBuf| {
        let real = base.join(path.strip_prefix("/").unwrap());
        let kind = fs::symlink_metadata(&real).unwrap().file_type();
        if kind.is_symlink() {
            let target = fs::read_link(&real).unwrap();
            return format!("link to {}", target.display());
        }
        if kind.is_dir() {
            return "directory".to_owned();
        }
        format!("file {:?}", fs::read_to_string(&real).unwrap())
    };
    paths
        .into_iter()
        .map(|path| (path.clone(), fact(&path)))
        .collect()
}

#[test]
fn assembled_root_is_what_the_kernel_shows() {
    let mut layers = layers();
    // What gives way to what, from layer to layer and within one.
    layers.push(
        Tar::new()
            .file("lib/new", b"the link below is a directory now")
            .symlink("usr/lib/back", "/etc/passwd")
            .file("opaque/sub/deep", b"x")
            .file("twice", b"1")
            .file("twice", b"2")
            .end(),
    );
    layers.push(
        Tar::new()
            .file("opaque/.wh.sub", b"")
            .file("opaque/sub/again", b"y")
            .file("opaque/.wh..wh..opq", b"")
            .file(".wh.etc", b"")
            .file("etc/own", b"z")
            .file("bin/.wh.nothing", b"")
            .end(),
    );
    let host = Host::new();
    let image = host.image("stack", &layers);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    let mounted = mount(&dirs);
    let shown = facts(&PathBuf::from(format!(
        "/proc/self/fd/{}",
        mounted.as_raw_fd()
    )));
    let root = tempfile::tempdir().unwrap();
    let assembled = host.store.assemble(&image, root.path(), &()).unwrap();
    let alias = assembled.file("/usr/lib/back");
    assert_eq!(alias, None, "`/etc/passwd` is gone");
    let libc = root.path().join("usr/lib/libc");
    assert_eq!(assembled.file("usr/lib/../lib/libc"), Some(libc));
    assert_eq!(assembled.file("/usr"), None);
    let mut expected = shown;
    // Seen from beside the link.
    let back = expected.get_mut(Path::new("/usr/lib/back")).unwrap();
    assert_eq!(back, "link to /etc/passwd");
    "link to ../../etc/passwd".clone_into(back);
    assert_eq!(facts(root.path()), expected);
    assert_eq!(expected[Path::new("/etc/own")], "file \"z\"");
    assert!(!expected.contains_key(Path::new("/etc/passwd")));
    assert!(!expected.contains_key(Path::new("/opaque/sub/deep")));
}

#[test]
fn assembled_layer_with_another_diff_id_is_refused() {
    let host = Host::new();
    let layer = Tar::new().file("a", b"a").end();
    let image = host.image_with("lie", &[layer], &[image::Digest::of(b"something else")]);
    let root = tempfile::tempdir().unwrap();
    let error = host.store.assemble(&image, root.path(), &()).unwrap_err();
    assert!(
        chain(&error).contains("the digest of the content"),
        "{error}"
    );
}

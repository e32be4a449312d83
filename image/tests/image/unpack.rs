//! Layers: what is unpacked how, and what is refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::host::{Field, Host, ROOT, Tar, chain, sign};
use image::{Digest, ErrorKind, ImageError, LayeredRoot, UnpackMode};

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn whiteouts_in_any_order_become_what_overlayfs_reads() {
    let host = Host::new();
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .file("d/.wh.gone", b"")
        // Opaque before and after its siblings.
        .file("before/.wh..wh..opq", b"")
        .file("before/kept", b"x")
        .dir("after", 0o750)
        .file("after/kept", b"x")
        .file("after/.wh..wh..opq", b"")
        // A whiteout and a new thing of the same name, in both orders.
        .file(".wh.new-dir", b"")
        .dir("new-dir", 0o755)
        .file(".wh.new-implied", b"")
        .file("new-implied/kept", b"x")
        .dir("old-dir", 0o755)
        .file(".wh.old-dir", b"")
        .file(".wh.new-file", b"")
        .file("new-file", b"x")
        .file("old-file", b"x")
        .file(".wh.old-file", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .hardlink(".wh.aufs", ".wh..wh.aufs");
    let dir = host.unpack_one(tar).unwrap();
    for gone in ["gone", "d/gone", "aufs"] {
        assert!(is_whiteout(&dir.join(gone)), "{gone}");
    }
    for opaque in ["before", "after", "new-dir", "new-implied", "old-dir"] {
        assert!(is_opaque(&dir.join(opaque)), "{opaque}");
    }
    for kept in [
        "before/kept",
        "after/kept",
        "new-implied/kept",
        "new-file",
        "old-file",
    ] {
        assert_eq!(fs::read(dir.join(kept)).unwrap(), b"x", "{kept}");
    }
    assert!(!is_opaque(&dir.join("d")));
    let after = fs::metadata(dir.join("after")).unwrap();
    assert_eq!(after.mode() & 0o7777, 0o750);
    assert!(
        !fs::read_dir(&dir)
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().as_bytes().starts_with(b".wh.") })
    );
}

#[test]
fn whiteouts_in_a_user_namespace_use_user_attributes() {
    let host = Host::with_mode(UnpackMode {
        userns: true,
        flat_owner: true,
    });
    let tar = Tar::new().file("d/.wh..wh..opq", b"").file(".wh.gone", b"");
    let dir = host.unpack_one(tar).unwrap();
    assert_eq!(
        xattr(&dir.join("d"), "user.overlay.opaque").as_deref(),
        Some(&b"y"[..])
    );
    assert!(!is_opaque(&dir.join("d")));
    assert!(is_whiteout(&dir.join("gone")));
}

/// Archives that try to reach the canary. Each either fails or stays inside.
pub(crate) fn hostile(canary: &str) -> Vec<(&'static str, Tar)> {
    let up = "../".repeat(12);
    let out = format!("{up}{canary}");
    let absolute = format!("/{canary}");
    let device = |path: &str| {
        Tar::new().header(&Field {
            path: path.as_bytes(),
            flag: b'3',
            device: (1, 3),
            ..Field::default()
        })
    };
    let fifo = |tar: Tar, path: &str| {
        tar.header(&Field {
            path: path.as_bytes(),
            flag: b'6',
            ..Field::default()
        })
    };
    let via = |name: &str, target: &str| Tar::new().symlink(name, target);
    vec![
        ("file ..", Tar::new().file(&format!("{out}/x"), b"x")),
        (
            "file absolute",
            Tar::new().file(&format!("{absolute}/x"), b"x"),
        ),
        (
            "file in the middle",
            Tar::new().file("a/../../../../../../../../x", b"x"),
        ),
        ("dir ..", Tar::new().dir(&out, 0o777)),
        ("dir absolute", Tar::new().dir(&absolute, 0o777)),
        ("symlink ..", Tar::new().symlink(&format!("{out}/x"), "y")),
        ("device ..", device(&format!("{out}/x"))),
        ("device absolute", device(&format!("{absolute}/x"))),
        ("fifo ..", fifo(Tar::new(), &format!("{out}/x"))),
        (
            "hardlink path ..",
            Tar::new().file("a", b"").hardlink(&format!("{out}/x"), "a"),
        ),
        (
            "hardlink target ..",
            Tar::new().hardlink("x", &format!("{out}/secret")),
        ),
        (
            "hardlink target absolute",
            Tar::new().hardlink("x", &format!("{absolute}/secret")),
        ),
        (
            "hardlink target absolute, then write",
            Tar::new()
                .hardlink("x", &format!("{absolute}/secret"))
                .file("x", b"owned"),
        ),
        (
            "hardlink to link out",
            via("l", &format!("{absolute}/secret"))
                .hardlink("x", "l")
                .file("x", b"owned"),
        ),
        (
            "hardlink through link",
            via("l", &absolute)
                .hardlink("x", "l/secret")
                .file("x", b"owned"),
        ),
        ("write through link", via("l", &absolute).file("l/x", b"x")),
        (
            "write through relative link",
            via("l", &out).file("l/x", b"x"),
        ),
        (
            "write through two links",
            via("a", &absolute).symlink("b", "a").file("b/x", b"x"),
        ),
        (
            "write through link and ..",
            via("l", &absolute).file("l/../x/secret", b"x"),
        ),
        (
            "write onto link",
            via("l", &format!("{absolute}/secret")).file("l", b"owned"),
        ),
        ("dir onto link", via("l", &absolute).dir("l", 0o777)),
        (
            "dir onto link with slash",
            via("l", &absolute).dir("l/", 0o777),
        ),
        ("dir through link", via("l", &absolute).dir("l/sub", 0o777)),
        (
            "symlink through link",
            via("l", &absolute).symlink("l/x", "y"),
        ),
        ("fifo through link", fifo(via("l", &absolute), "l/x")),
        (
            "hardlink into link",
            via("l", &absolute).file("a", b"").hardlink("l/x", "a"),
        ),
        (
            "whiteout ..",
            Tar::new().file(&format!("{out}/.wh.secret"), b""),
        ),
        (
            "whiteout through link",
            via("l", &absolute).file("l/.wh.secret", b""),
        ),
        (
            "opaque through link",
            via("l", &absolute).file("l/.wh..wh..opq", b""),
        ),
        ("root as link", via(".", &absolute).file("x", b"x")),
        ("root as file", Tar::new().file("./", b"x")),
        ("root as link, slash", via("/", &absolute).file("x", b"x")),
        (
            "dir replaced by link",
            Tar::new()
                .dir("d", 0o755)
                .symlink("d", &absolute)
                .file("d/x", b"x"),
        ),
        (
            "dir with content replaced by link",
            Tar::new()
                .file("d/s/f", b"x")
                .symlink("d", &absolute)
                .file("d/secret", b"owned"),
        ),
        (
            "pax path ..",
            Tar::new()
                .pax(&[("path", format!("{out}/x").as_bytes())])
                .file("fine", b"x"),
        ),
        (
            "pax linkpath ..",
            Tar::new()
                .pax(&[("linkpath", format!("{out}/secret").as_bytes())])
                .hardlink("x", "fine"),
        ),
        (
            "GNU long name ..",
            Tar::new()
                .extended(b'L', format!("{out}/x\0").as_bytes())
                .file("fine", b"x"),
        ),
        (
            "GNU long link ..",
            Tar::new()
                .extended(b'K', format!("{out}/secret\0").as_bytes())
                .hardlink("x", "y"),
        ),
        (
            "NUL in path",
            Tar::new()
                .pax(&[("GNU.sparse.name", b"a\0b")])
                .file("fine", b"x"),
        ),
        (
            "mode through hard link to link",
            via("l", &absolute).hardlink("m", "l").dir("m", 0o777),
        ),
    ]
}

#[test]
fn hostile_archive_reaches_nothing_outside() {
    let host = Host::new();
    let canary = host.canary();
    let canary = canary.to_str().unwrap().trim_start_matches('/');
    for (at, (what, tar)) in hostile(canary).into_iter().enumerate() {
        let image = host.image(&format!("hostile:{at}"), &[tar.end()]);
        let result = host.store.ensure_unpacked(&image, &());
        if let Err(error) = &result {
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidInput,
                "{what}: {}",
                chain(error)
            );
        }
        host.assert_canary_unchanged();
        host.assert_nothing_half_made();
    }
}

#[test]
fn hostile_archive_through_links_is_refused() {
    let host = Host::new();
    for what in [
        "write through link",
        "opaque through link",
        "root as link",
        "file ..",
    ] {
        let tar = hostile("canary")
            .into_iter()
            .find(|(name, _)| *name == what);
        let error = host.unpack_one(tar.unwrap().1).unwrap_err();
        assert!(
            chain(&error).contains("is refused"),
            "{what}: {}",
            chain(&error)
        );
        assert_eq!(host.count(&host.layout.layers()), 0);
    }
}

#[test]
fn directory_entry_onto_link_replaces_the_link() {
    let host = Host::new();
    let canary = host.canary();
    let tar = Tar::new()
        .symlink("d", canary.to_str().unwrap())
        .dir("d", 0o777);
    let dir = host.unpack_one(tar).unwrap();
    let meta = fs::symlink_metadata(dir.join("d")).unwrap();
    assert!(meta.is_dir());
    assert_eq!(meta.mode() & 0o7777, 0o777);
    host.assert_canary_unchanged();
}

#[test]
fn later_entry_replaces_an_earlier_one() {
    let host = Host::new();
    let tar = Tar::new()
        .file("a", b"old")
        .file("a", b"new")
        .file("d/sub/file", b"x")
        .file("d", b"a file now")
        .file("e", b"x")
        .file("f", b"x")
        .dir("f", 0o700)
        .file("f/inside", b"x");
    let dir = host.unpack_one(tar).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(dir.join("d")).unwrap(), b"a file now");
    assert_eq!(fs::read(dir.join("f/inside")).unwrap(), b"x");
}

#[test]
fn attributes_of_every_kind_are_kept() {
    let host = Host::new();
    let long = "n".repeat(200);
    let tar = Tar::new()
        .pax(&[
            ("uid", b"3000000"),
            ("gid", b"4000000"),
            ("mtime", b"1700000000.123456789"),
            ("SCHILY.xattr.user.note", b"with\0nul"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ])
        .header(&Field {
            path: b"setuid",
            mode: 0o6755,
            ..Field::default()
        })
        .pax(&[("mtime", b"-1.5")])
        .dir("sticky", 0o1777)
        .file("sticky/inside", b"x")
        .extended(b'L', format!("{long}\0").as_bytes())
        .file("short", b"long")
        .header(&Field {
            path: b"latin\xe9",
            ..Field::default()
        })
        .header(&Field {
            path: b"pipe",
            flag: b'6',
            mode: 0o622,
            ..Field::default()
        })
        .header(&Field {
            path: b"null",
            flag: b'3',
            mode: 0o666,
            device: (1, 3),
            ..Field::default()
        })
        .header(&Field {
            path: b"disk",
            flag: b'4',
            mode: 0o660,
            device: (8, 1),
            ..Field::default()
        })
        .pax(&[("uid", b"7"), ("linkpath", b"/where/ever")])
        .symlink("link", "short")
        .hardlink("hard", "./setuid")
        .header(&Field {
            path: b"old-dir/",
            flag: 0,
            mode: 0o711,
            ..Field::default()
        });
    let dir = host.unpack_one(tar).unwrap();
    let meta = |name: &[u8]| fs::symlink_metadata(dir.join(OsStr::from_bytes(name))).unwrap();
    let setuid = meta(b"setuid");
    assert_eq!((setuid.uid(), setuid.gid()), (3_000_000, 4_000_000));
    assert_eq!(setuid.mode() & 0o7777, 0o6755);
    assert_eq!(
        (setuid.mtime(), setuid.mtime_nsec()),
        (1_700_000_000, 123_456_789)
    );
    let setuid_path = dir.join("setuid");
    assert_eq!(xattr(&setuid_path, "user.note").unwrap(), b"with\0nul");
    assert_eq!(xattr(&setuid_path, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&setuid_path, "user.overlay.opaque"), None);
    assert_eq!(meta(b"hard").ino(), setuid.ino());
    let sticky = meta(b"sticky");
    assert_eq!(sticky.mode() & 0o7777, 0o1777);
    assert_eq!((sticky.mtime(), sticky.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(fs::read(dir.join(&long)).unwrap(), b"long");
    assert!(meta(b"latin\xe9").is_file());
    assert!(meta(b"pipe").file_type().is_fifo());
    assert_eq!(meta(b"pipe").mode() & 0o7777, 0o622);
    assert!(meta(b"null").file_type().is_char_device());
    assert_eq!(meta(b"null").rdev(), rustix::fs::makedev(1, 3));
    assert!(meta(b"disk").file_type().is_block_device());
    assert_eq!(meta(b"link").uid(), 7);
    assert_eq!(
        fs::read_link(dir.join("link")).unwrap(),
        Path::new("/where/ever")
    );
    assert_eq!(meta(b"old-dir").mode() & 0o7777, 0o711);
}

#[test]
fn sparse_files_of_every_form_are_expanded() {
    let host = Host::new();
    let mut old = Tar::new().header(&Field {
        path: b"old",
        flag: b'S',
        size: 6,
        ..Field::default()
    });
    {
        let header: &mut [u8; 512] = old.0.last_chunk_mut().unwrap();
        header[257..265].copy_from_slice(b"ustar  \0");
        header[386..410].copy_from_slice(b"00000001000\x0000000000003\0");
        header[410..434].copy_from_slice(b"00000002000\x0000000000003\0");
        header[483..494].copy_from_slice(b"00000004000");
        sign(header);
    }
    let map = b"2\n512\n3\n1024\n3\n";
    let mut body = map.to_vec();
    body.resize(512, 0);
    body.extend_from_slice(b"abcdef");
    let tar = old
        .body(b"abcdef")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"one"),
            ("GNU.sparse.realsize", b"2048"),
        ])
        .file("GNUSparseFile.0/one", &body)
        .pax(&[
            ("GNU.sparse.size", b"2048"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"512,3,1024,3"),
        ])
        .file("map", b"abcdef")
        .pax(&[
            ("GNU.sparse.size", b"2048"),
            ("GNU.sparse.offset", b"512"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"1024"),
            ("GNU.sparse.numbytes", b"3"),
        ])
        .file("pairs", b"abcdef")
        .file("next", b"still in step");
    let dir = host.unpack_one(tar).unwrap();
    let mut expected = vec![0; 2048];
    expected[512..515].copy_from_slice(b"abc");
    expected[1024..1027].copy_from_slice(b"def");
    for name in ["old", "one", "map", "pairs"] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), expected, "{name}");
    }
    assert_eq!(fs::read(dir.join("next")).unwrap(), b"still in step");
}

#[test]
fn size_in_pax_header_counts_and_the_body_is_no_archive() {
    let host = Host::new();
    let inner = Tar::new().file("smuggled", b"x").end();
    let size = inner.len().to_string();
    // The ustar field says 0: a reader that believes it takes the body for headers.
    let tar = Tar::new()
        .pax(&[("size", size.as_bytes())])
        .header(&Field {
            path: b"nested.tar",
            ..Field::default()
        })
        .body(&inner)
        .file("after", b"x");
    let dir = host.unpack_one(tar).unwrap();
    assert_eq!(fs::read(dir.join("nested.tar")).unwrap(), inner);
    assert!(!dir.join("smuggled").exists());
    assert!(dir.join("after").exists());
}

#[test]
fn malformed_archive_is_refused_and_leaves_nothing() {
    let host = Host::new();
    let plain = || Tar::new().file("file", b"content");
    let mut bad_sum = plain();
    bad_sum.0[0] = b'F';
    let mut bad_size = plain();
    bad_size.0[124..136].copy_from_slice(b"9999999999z\0");
    let header: &mut [u8; 512] = bad_size.0.first_chunk_mut().unwrap();
    sign(header);
    let mut one_zero_block = plain();
    one_zero_block.0.resize(one_zero_block.0.len() + 512, 0);
    let huge_pax = vec![b'x'; 2 * 1024 * 1024];
    let table = [
        ("checksum", bad_sum.end()),
        ("size", bad_size.end()),
        (
            "one block of zeros",
            one_zero_block.file("hidden", b"").end(),
        ),
        ("cut header", plain().0[..300].to_vec()),
        ("cut body", plain().0[..512].to_vec()),
        (
            "type",
            Tar::new()
                .header(&Field {
                    flag: b'V',
                    ..Field::default()
                })
                .end(),
        ),
        (
            "PAX record",
            Tar::new()
                .extended(b'x', b"8 path=x\n")
                .file("f", b"")
                .end(),
        ),
        (
            "PAX too long",
            Tar::new().extended(b'x', &huge_pax).file("f", b"").end(),
        ),
        (
            "PAX size",
            Tar::new().pax(&[("size", b"-1")]).file("f", b"").end(),
        ),
        (
            "owner",
            Tar::new()
                .pax(&[("uid", b"4294967295")])
                .file("f", b"")
                .end(),
        ),
        (
            "owner overflow",
            Tar::new()
                .pax(&[("uid", b"4294967296")])
                .file("f", b"")
                .end(),
        ),
        (
            "device 0:0",
            Tar::new()
                .header(&Field {
                    flag: b'3',
                    ..Field::default()
                })
                .end(),
        ),
        (
            "sparse map",
            Tar::new()
                .pax(&[("GNU.sparse.map", b"0,9"), ("GNU.sparse.size", b"4")])
                .file("f", b"abc")
                .end(),
        ),
        (
            "hard link to dir",
            Tar::new().dir("d", 0o755).hardlink("h", "d").end(),
        ),
        (
            "hard link to nothing",
            Tar::new().hardlink("h", "nothing").end(),
        ),
        ("no tar", vec![b'n'; 2048]),
    ];
    for (what, bytes) in table {
        let image = host.image("malformed", &[bytes]);
        let result = host.store.ensure_unpacked(&image, &());
        let error = result.map(|_| what).unwrap_err();
        assert!(
            matches!(error, ImageError::Unpack { .. } | ImageError::Entry { .. }),
            "{what}"
        );
        host.assert_nothing_half_made();
    }
}

#[test]
fn wrong_diff_id_leaves_nothing() {
    let host = Host::new();
    let tar = Tar::new().file("file", b"content").end();
    let image = host.image_with("wrong", &[tar], &[Digest::of(b"another")]);
    let error = host.store.ensure_unpacked(&image, &()).unwrap_err();
    assert!(chain(&error).contains("the digest of the content is"));
    assert_eq!(host.count(&host.layout.layers()), 0);
    host.assert_nothing_half_made();
}

#[test]
fn bytes_behind_the_archive_belong_to_the_diff_id() {
    let host = Host::new();
    let mut tar = Tar::new().file("file", b"content").end();
    tar.extend_from_slice(&[7; 10_000]);
    host.unpack(&[tar]).unwrap();
}

#[test]
fn compressed_layers_are_told_by_their_bytes() {
    use std::io::Write;
    let host = Host::new();
    let tar = Tar::new().file("file", &[b'x'; 5000]).end();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (first, second) = tar.split_at(700);
    let members = [gzip(first), gzip(second)].concat();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for (name, blob) in [("gzip", members.clone()), ("zstd", zstd)] {
        let image = host.image_with(name, &[blob], &[Digest::of(&tar)]);
        let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
        assert_eq!(fs::read(dirs[0].join("file")).unwrap().len(), 5000);
    }
    let host = Host::new();
    let cut = members[..members.len() - 20].to_vec();
    let image = host.image_with("cut", &[cut], &[Digest::of(&tar)]);
    assert!(host.store.ensure_unpacked(&image, &()).is_err());
    assert_eq!(host.count(&host.layout.layers()), 0);
    host.assert_nothing_half_made();
}

#[test]
fn layer_of_another_unpack_mode_is_not_used() {
    let host = Host::new();
    let image = host.image("modes", &[Tar::new().file("f", b"x").end()]);
    let privileged = host.store.ensure_unpacked(&image, &()).unwrap();
    let userns = UnpackMode {
        userns: true,
        ..ROOT
    };
    let other = image::Store::open(&host.layout, userns).unwrap();
    let unprivileged = other.ensure_unpacked(&image, &()).unwrap();
    assert_ne!(privileged, unprivileged);
    assert_eq!(host.store.ensure_unpacked(&image, &()).unwrap(), privileged);
}

#[test]
fn layer_without_its_record_is_unpacked_again() {
    let host = Host::new();
    let image = host.image("torn", &[Tar::new().file("f", b"x").end()]);
    let dirs = host.store.ensure_unpacked(&image, &()).unwrap();
    fs::remove_file(dirs[0].with_extension("json")).unwrap();
    fs::remove_file(dirs[0].join("f")).unwrap();
    host.store.ensure_unpacked(&image, &()).unwrap();
    assert!(dirs[0].join("f").exists());
}

#[test]
fn implied_directories_take_the_attributes_of_the_layer_below() {
    let host = Host::new();
    let base = Tar::new()
        .dir("tmp", 0o1777)
        .dir("opt", 0o700)
        .file("opt/a", b"a");
    let upper = Tar::new().file("tmp/new", b"x").file("opt/deep/er/b", b"b");
    let top = Tar::new().dir("opt", 0o711);
    let dirs = host.unpack(&[base.end(), upper.end(), top.end()]).unwrap();
    assert_eq!(dirs.len(), 4);
    let root = LayeredRoot::new(dirs);
    let mode = |path: &str| root.lookup(Path::new(path)).unwrap().mode & 0o7777;
    assert_eq!(mode("/tmp"), 0o1777);
    assert_eq!(mode("/opt"), 0o711);
    assert_eq!(mode("/opt/deep/er"), 0o755);
    assert_eq!(root.read_bounded(Path::new("/tmp/new"), 9).unwrap(), b"x");
    assert_eq!(root.read_bounded(Path::new("/opt/a"), 9).unwrap(), b"a");
}

#[test]
fn hard_link_to_a_layer_below_becomes_a_copy() {
    let host = Host::new();
    let base = Tar::new()
        .dir("bin", 0o755)
        .header(&Field {
            path: b"bin/tool",
            mode: 0o4755,
            size: 4,
            ..Field::default()
        })
        .body(b"tool");
    let upper = Tar::new()
        .hardlink("bin/alias", "bin/tool")
        .hardlink("bin/second", "bin/alias")
        .hardlink("bin/hidden", "bin/tool");
    let top = Tar::new().file("bin/.wh.hidden", b"");
    let dirs = host.unpack(&[base.end(), upper.end(), top.end()]).unwrap();
    let root = LayeredRoot::new(dirs);
    for name in ["/bin/alias", "/bin/second"] {
        let found = root.lookup(Path::new(name)).unwrap();
        assert_eq!(found.mode & 0o7777, 0o4755);
        assert_eq!(root.read_bounded(Path::new(name), 9).unwrap(), b"tool");
    }
    assert!(root.lookup(Path::new("/bin/hidden")).is_err());
}

#[test]
fn store_directories_are_closed_to_others() {
    let host = Host::new();
    let dirs = host.unpack(&[Tar::new().dir("./", 0o755).end()]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(host.layout.root()), 0o700);
    assert_eq!(mode(&dirs[0]), 0o755);
}

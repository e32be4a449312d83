//! Mounts of every kind: parts of volumes, images, shifted owners, read-only trees.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use crate::{done, refused, sandbox, shell};

#[test]
fn part_of_a_volume_is_mounted_and_nothing_above_it() {
    let Some(cx) = sandbox() else { return };
    let made = shell(
        &cx,
        "-v data:/v",
        "/busybox mkdir -p /v/in/side && echo deep >/v/in/side/file && echo top >/v/file \
         && /busybox ln -s /in/side /v/link && /busybox ln -s ../../../../etc /v/out",
    );
    assert_eq!(made.code, 0, "{}", made.stderr);
    for part in ["in/side", "link"] {
        let options = format!("--mount type=volume,src=data,dst=/p,volume-subpath={part}");
        let run = shell(
            &cx,
            &options,
            "/busybox ls /p && /busybox cat /p/file && echo more >/p/new",
        );
        assert_eq!(
            run.stdout,
            if part == "link" {
                "file\nnew\ndeep\n"
            } else {
                "file\ndeep\n"
            }
        );
    }
    let file = "--mount type=volume,src=data,dst=/p,volume-subpath=file";
    assert_eq!(shell(&cx, file, "/busybox cat /p").stdout, "top\n");
    for part in ["none", "out", "file/below"] {
        let args =
            format!("run --mount type=volume,src=data,dst=/p,volume-subpath={part} files read /p");
        refused(&cx, &args, "cannot mount `");
    }
    refused(
        &cx,
        "run --mount type=volume,src=data,dst=/p,volume-subpath=../etc files read /p",
        "without `..`",
    );
    assert_eq!(done(&cx, "ps -aq"), "");
}

#[test]
fn image_is_mounted_read_only_and_stays_while_a_container_has_it() {
    let Some(cx) = sandbox() else { return };
    cx.image(
        "other",
        &[
            ("top/file", b"of the image\n", 0o644),
            ("top/deep/er", b"x", 0o600),
        ],
        &[],
    );
    let mount = "--mount type=image,source=other,target=/i";
    let run = shell(
        &cx,
        mount,
        "/busybox cat /i/top/file; ! echo x >/i/new && ! echo x >/i/top/file",
    );
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "of the image\n"),
        "{}",
        run.stderr
    );
    let part = "--mount type=image,source=other,target=/i,image-subpath=top/deep";
    assert_eq!(shell(&cx, part, "/busybox ls /i").stdout, "er\n");
    done(&cx, &format!("create --name holder {mount} files read /i"));
    refused(&cx, "rmi other", "holder");
    done(&cx, "rm holder");
    done(&cx, "rmi other");
    refused(
        &cx,
        &format!("run {mount} files read /i"),
        "not in the local store",
    );
}

#[test]
fn image_of_several_layers_is_one_tree() {
    let Some(cx) = sandbox() else { return };
    let archive = cx.path().join("layers.tar");
    two_layers(&archive);
    done(&cx, &format!("load -i {}", archive.display()));
    let mount = "--mount type=image,source=layered:1,target=/i";
    let run = shell(&cx, mount, "/busybox ls /i && /busybox cat /i/both");
    assert_eq!(run.stdout, "both\nlower\nupper\nabove\n", "{}", run.stderr);
    let part = "--mount type=image,source=layered:1,target=/i,image-subpath=both";
    let run = shell(&cx, part, "/busybox cat /i");
    assert_eq!(run.stdout, "above\n", "{}", run.stderr);
}

/// An image with two layers in Docker's archive format, the upper one with a whiteout.
fn two_layers(path: &std::path::Path) {
    let entry = |archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    let layer = |files: &[(&str, &str)]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in files {
            entry(&mut archive, name, text.as_bytes());
        }
        archive.into_inner().unwrap()
    };
    let lower = layer(&[("lower", "1\n"), ("both", "below\n"), ("gone", "x")]);
    let upper = layer(&[("upper", "2\n"), ("both", "above\n"), (".wh.gone", "")]);
    let digest = |bytes: &[u8]| {
        let mut child = Command::new("sha256sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
        let output = child.wait_with_output().unwrap().stdout;
        String::from_utf8(output).unwrap()[..64].to_owned()
    };
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{}","sha256:{}"]}}}}"#,
        digest(&lower),
        digest(&upper)
    );
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["layered:1"],"Layers":["lower.tar","upper.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("config.json", config.as_bytes()),
        ("lower.tar", &lower),
        ("upper.tar", &upper),
        ("manifest.json", manifest.as_bytes()),
    ] {
        entry(&mut archive, name, bytes);
    }
    let mut file = std::fs::File::create(path).unwrap();
    std::io::Write::write_all(&mut file, &archive.into_inner().unwrap()).unwrap();
}

#[test]
fn owner_is_shifted_for_the_container_and_stays_on_the_host() {
    let Some(cx) = sandbox() else { return };
    let dir = cx.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::File::create(dir.join("own")).unwrap();
    for path in [&dir, &dir.join("own")] {
        chown(path, Some(4242), Some(4243)).unwrap();
    }
    let (source, script) = (
        dir.display(),
        "/busybox stat -c '%u %g' /d /d/own && echo x >/d/made",
    );
    for options in [
        format!("-u 1000:1001 -v {source}:/d:U"),
        format!("-u 1000:1001 --mount type=bind,source={source},target=/d,U"),
        format!("-v {source}:/d:U"),
    ] {
        let run = shell(&cx, &options, script);
        let seen = if options.contains("1000") {
            "1000 1001\n"
        } else {
            "0 0\n"
        };
        assert_eq!(run.stdout, seen.repeat(2), "{options}: {}", run.stderr);
        let made = dir.join("made");
        let meta = std::fs::metadata(&made).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (4242, 4243));
        std::fs::remove_file(made).unwrap();
    }
    let meta = std::fs::metadata(&dir).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (4242, 4243));
    // A new volume belongs to whoever the container runs as.
    let run = shell(
        &cx,
        "-u 1000:1001 -v new:/v:U",
        "echo x >/v/made && /busybox stat -c %u /v/made",
    );
    assert_eq!(run.stdout, "1000\n", "{}", run.stderr);
}

#[test]
fn read_only_reaches_what_is_mounted_below_unless_it_is_told_not_to() {
    let Some(cx) = sandbox() else { return };
    let dir = cx.path().join("dir");
    std::fs::create_dir_all(dir.join("below")).unwrap();
    let below = dir.join("below");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "tmpfs"])
        .arg(&below)
        .status()
        .unwrap();
    assert!(mounted.success());
    let source = dir.display();
    let script =
        "echo x 2>/dev/null >/d/x && echo top; echo x 2>/dev/null >/d/below/x && echo below; true";
    let results: Vec<String> = [
        format!("-v {source}:/d:ro"),
        format!("--mount type=bind,src={source},dst=/d,ro,bind-propagation=rprivate,bind-recursive=readonly"),
        format!("--mount type=bind,src={source},dst=/d,ro,bind-recursive=writable"),
        format!("--mount type=bind,src={source},dst=/d,bind-recursive=disabled"),
        format!("-v {source}:/d"),
    ]
    .iter()
    .map(|options| shell(&cx, options, script).stdout)
    .collect();
    let memory = below.join("x").exists();
    let unmounted = Command::new("umount").arg(&below).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(results, ["", "", "below\n", "top\nbelow\n", "top\nbelow\n"]);
    // Without what is mounted below, it is the directory that was hidden.
    assert!(memory && below.join("x").exists());
}

#[test]
fn unknown_or_misplaced_mount_keys_are_refused() {
    let Some(cx) = sandbox() else { return };
    for (mount, says) in [
        (
            "type=bind,source=/tmp,target=/d,readnoly",
            "`readnoly` is not known",
        ),
        (
            "type=bind,source=/tmp,target=/d,volume-nocopy",
            "does not belong to type bind",
        ),
        (
            "type=volume,target=/d,tmpfs-size=1m",
            "does not belong to type volume",
        ),
        (
            "type=tmpfs,target=/d,image-subpath=x",
            "does not belong to type tmpfs",
        ),
        ("type=cluster,target=/d", "no type cluster"),
        (
            "type=bind,source=/gone/away,target=/d",
            "no such file or directory",
        ),
        ("type=bind,source=/tmp,target=d", "must be absolute"),
        (
            "type=bind,source=/tmp,target=/d,bind-recursive=readonly",
            "needs `readonly`",
        ),
        (
            "type=volume,source=vol,target=/d,volume-driver=gone",
            "no such volume driver: gone",
        ),
    ] {
        refused(&cx, &format!("run --mount {mount} files read /"), says);
    }
    assert_eq!(done(&cx, "volume ls -q"), "");
    assert_eq!(done(&cx, "ps -aq"), "");
}

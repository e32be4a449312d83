//! The rows of the security checklist about images that only the program can show: S19, S26, S32.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use testkit::{Need, Sandbox};

use crate::support::{KETCH, docker_archive_with, ketch, run};

fn tar(entries: &[(&str, &[u8], u32, Option<&str>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes, mode, link) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        match link {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, target).unwrap();
            }
            None => archive.append_data(&mut header, path, *bytes).unwrap(),
        }
    }
    archive.into_inner().unwrap()
}

#[test]
fn s19_compressed_archives_start_no_program() {
    let Some(cx) = Sandbox::new(KETCH, &[]) else {
        return;
    };
    // Programs that others start to decompress; here each would leave a mark.
    let bin = cx.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let mark = cx.path().join("mark");
    for name in [
        "gzip", "unpigz", "pigz", "xz", "zstd", "tar", "bzip2", "unxz",
    ] {
        let path = bin.join(name);
        let mut file = fs::File::create(&path).unwrap();
        write!(file, "#!/bin/sh\necho {name} >>{}\n", mark.display()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // The image brings its own as well.
    let evil = format!("#!/bin/sh\necho image >>{}\n", mark.display());
    let evil = evil.as_bytes();
    let rootfs = tar(&[
        ("usr/bin/xz", evil, 0o755, None),
        ("usr/bin/unpigz", evil, 0o755, None),
        ("bin/tar", evil, 0o755, None),
        ("lib/x86_64-linux-gnu/libnss_files.so.2", evil, 0o755, None),
        ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", 0o644, None),
    ]);
    let plain = cx.path().join("archive");
    fs::File::create(&plain)
        .unwrap()
        .write_all(&rootfs)
        .unwrap();
    for program in ["gzip", "xz"] {
        run(program, &["--keep", plain.to_str().unwrap()]);
    }
    let zstd = zstd::encode_all(&rootfs[..], 1).unwrap();
    let mut file = fs::File::create(plain.with_extension("zst")).unwrap();
    file.write_all(&zstd).unwrap();
    for form in ["gz", "xz", "zst"] {
        let file = plain.with_extension(form);
        let saved = cx.path().join("saved.tar");
        for args in [
            vec!["import", file.to_str().unwrap(), "app"],
            vec!["save", "-o", saved.to_str().unwrap(), "app"],
            vec!["image", "convert", "--compression", "gzip", "app", "app:gz"],
            vec!["rmi", "app", "app:gz"],
            vec!["load", "-i", saved.to_str().unwrap()],
            vec!["image", "inspect", "app"],
        ] {
            let mut command = cx.command();
            let done = command.env("PATH", &bin).args(&args).output().unwrap();
            let text = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{args:?}: {text}");
        }
    }
    assert!(!mark.exists(), "{:?}", fs::read_to_string(&mark));
}

#[test]
fn s26_volume_path_that_is_a_link_of_the_image_brings_nothing_of_the_host() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let canary = cx.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::File::create(canary.join("secret")).unwrap();
    let canary = canary.to_str().unwrap();
    let busybox = fs::read(testkit::BUSYBOX).unwrap();
    for target in [
        canary.to_owned(),
        format!("../../../../../..{canary}"),
        "/etc".to_owned(),
    ] {
        let rootfs = tar(&[
            ("bin/sh", &busybox, 0o755, None),
            ("etc/own", b"of the image", 0o644, None),
            ("v", b"", 0o777, Some(&target)),
        ]);
        let archive = cx.path().join("image.tar");
        let config = r#"{"Cmd":["/bin/sh"],"Volumes":{"/v":{}}}"#;
        docker_archive_with(&archive, "linked", &[rootfs], config);
        ketch(&cx, &["load", "-i", archive.to_str().unwrap()]);
        let run = cx.ketch([
            "run",
            "--rm",
            "linked",
            "/bin/sh",
            "-c",
            "ls /v/ && echo x >/v/new",
        ]);
        // Refused, or inside: never the host's.
        assert!(!run.stdout.contains("secret"), "{target}: {}", run.stdout);
        let left: Vec<_> = fs::read_dir(canary).unwrap().collect();
        assert_eq!(left.len(), 1, "{target}: {left:?}");
        assert!(!fs::exists("/etc/new").unwrap());
        ketch(&cx, &["rmi", "linked"]);
    }
}

#[test]
fn s32_labels_and_annotations_steer_nothing() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Busybox]) else {
        return;
    };
    let busybox = fs::read(testkit::BUSYBOX).unwrap();
    let rootfs = tar(&[("bin/sh", &busybox, 0o755, None)]);
    let mark = cx.path().join("mark");
    let hook = format!("/bin/sh -c 'echo x >{}'", mark.display());
    let labels = [
        "io.containerd.logger.binary",
        "io.kubernetes.cri-o.userns-mode",
        "io.podman.annotations.privileged",
        "io.podman.annotations.cdi.devices",
        "cdi.k8s.io/all",
        "run.oci.hooks.prestart",
        "run.oci.delegate-cgroup",
        "run.oci.mount_context_type",
        "org.systemd.property.Delegate",
        "com.docker.network.bridge.name",
        "io.ketch.privileged",
    ];
    let labels: Vec<_> = labels
        .iter()
        .map(|label| format!("{label:?}:{hook:?}"))
        .collect();
    let config = format!(
        r#"{{"Cmd":["/bin/sh","-c","grep Cap /proc/self/status; ls /dev"],"Labels":{{{}}}}}"#,
        labels.join(",")
    );
    let plain = r#"{"Cmd":["/bin/sh","-c","grep Cap /proc/self/status; ls /dev"]}"#;
    let mut seen = Vec::new();
    for (name, config) in [("labelled", config.as_str()), ("plain", plain)] {
        let archive = cx.path().join("image.tar");
        docker_archive_with(&archive, name, std::slice::from_ref(&rootfs), config);
        ketch(&cx, &["load", "-i", archive.to_str().unwrap()]);
        let explained = ketch(&cx, &["run", "--explain", name]);
        assert!(explained.contains("runtime: native"), "{explained}");
        seen.push(ketch(&cx, &["run", "--rm", name]));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(!mark.exists());
}

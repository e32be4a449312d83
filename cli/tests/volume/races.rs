//! Somebody in a volume swaps a directory and a link to the host while another container mounts
//! below it (CVE-2021-30465, CVE-2024-45310), and links of images and volumes that point to the host
//! (CVE-2022-23648).

use std::os::unix::fs::symlink;
use std::path::Path;

use testkit::{Sandbox, exchange};

use crate::{done, sandbox, shell};

/// Starts while somebody swaps. The defect shows in one of a few dozen.
const STARTS: u32 = 150;

/// What is mounted on the host, by its path.
fn host_mounts(below: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = below.to_str().unwrap();
    mounts.lines().filter(|line| line.contains(below)).count()
}

/// Runs starts with these options while `dir` and a link to the canary change places in the volume.
fn race(cx: &Sandbox, options: &str) {
    let canary = cx.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    done(cx, "volume create shared");
    let data = cx.path().join("root/volumes/shared/data");
    let (dir, link) = (data.join("dir"), data.join("link"));
    std::fs::create_dir(&dir).unwrap();
    symlink(&canary, &link).unwrap();
    let mut started = 0;
    let swap = || exchange(&dir, &link).unwrap();
    testkit::race(swap, || {
        for _ in 0..STARTS {
            let options: Vec<&str> = options.split(' ').collect();
            let mut args = vec!["run", "--rm", "-v", "shared:/v"];
            args.extend(options);
            args.extend(["files", "write", "/v/dir/new/made", "x"]);
            // Either it is mounted in the container, or the start is refused.
            let run = cx.ketch(args);
            started += u32::from(run.code == 0);
        }
    });
    assert_eq!(
        std::fs::read_dir(&canary).unwrap().count(),
        0,
        "the canary has visitors"
    );
    assert_eq!(host_mounts(&canary), 0);
    assert!(started > 0, "no start got through: nothing was tried");
}

#[test]
fn mount_in_a_shared_volume_never_leaves_the_container() {
    let Some(cx) = sandbox() else { return };
    race(&cx, "--tmpfs /v/dir/new");
    assert_eq!(host_mounts(&cx.path().join("root/volumes")), 0);
}

#[test]
fn missing_mount_point_in_a_shared_volume_is_never_made_on_the_host() {
    let Some(cx) = sandbox() else { return };
    let source = cx.path().join("source");
    std::fs::create_dir(&source).unwrap();
    race(
        &cx,
        &format!(
            "-v {}:/v/dir/new/deep/er --tmpfs /v/dir/new",
            source.display()
        ),
    );
}

#[test]
fn links_of_images_and_volumes_show_nothing_of_the_host() {
    let Some(cx) = sandbox() else { return };
    let canary = cx.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    let secret = canary.join("secret");
    std::io::Write::write_all(&mut std::fs::File::create(&secret).unwrap(), b"of the host")
        .unwrap();
    // An image whose volume is a link to a directory of the host, by absolute and by relative path.
    for (name, target) in [
        ("absolute", canary.clone()),
        (
            "relative",
            Path::new("../../../../../..").join(canary.strip_prefix("/").unwrap()),
        ),
    ] {
        let mut archive = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "v", &target).unwrap();
        let busybox = std::fs::read(testkit::BUSYBOX).unwrap();
        let mut program = tar::Header::new_gnu();
        program.set_size(busybox.len() as u64);
        program.set_mode(0o755);
        archive
            .append_data(&mut program, "busybox", &busybox[..])
            .unwrap();
        let archive = archive.into_inner().unwrap();
        let changes = ["import", "--change", "VOLUME /v", "-", name];
        assert_eq!(cx.ketch_with_input(changes, &archive).code, 0);
        let run = cx.ketch(["run", "--rm", name, "/busybox", "cat", "/v/secret"]);
        assert!(!run.stdout.contains("of the host"), "{name}: {run:?}");
        let run = cx.ketch(["run", "--rm", name, "/busybox", "touch", "/v/visitor"]);
        assert!(!canary.join("visitor").exists(), "{name}: {run:?}");
    }
    // A volume that holds a link to the host, mounted again by its part.
    let made = shell(
        &cx,
        "-v data:/v",
        &format!("/busybox ln -s {} /v/way", canary.display()),
    );
    assert_eq!(made.code, 0, "{}", made.stderr);
    for part in ["way", "way/secret"] {
        let mount = format!("--mount type=volume,src=data,dst=/p,volume-subpath={part}");
        let run = shell(
            &cx,
            &mount,
            "/busybox cat /p /p/secret; /busybox touch /p/visitor",
        );
        assert!(!run.stdout.contains("of the host"), "{part}: {run:?}");
    }
    let exported = cx.ketch(["volume", "export", "data"]);
    assert!(exported.code == 0 && !exported.stdout.contains("of the host"));
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1);
}

//! Mounts and the root: links that lead to nothing, file systems that take over what they hide, and
//! what must not stay in sight.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::bundle::Bundle;
use serde_json::json;

#[test]
fn mount_on_a_dangling_link_lies_where_the_link_points_inside_the_root() {
    let Some(mut bundle) = Bundle::shell("cat /etc/resolv.conf /run/stub/resolv.conf") else {
        return;
    };
    symlink(
        "../run/stub/resolv.conf",
        bundle.rootfs().join("etc/resolv.conf"),
    )
    .unwrap();
    fs::write(bundle.dir().join("hosts"), "names\n").unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/etc/resolv.conf", "source": "hosts", "options": ["bind"]}));
    let run = bundle.run();
    assert_eq!(run.stdout, "names\nnames\n", "{}", run.stderr);
    let made = fs::read_to_string(bundle.rootfs().join("run/stub/resolv.conf")).unwrap();
    assert_eq!(made, "", "the mount point, empty");
}

#[test]
fn dangling_link_out_of_the_root_makes_nothing_on_the_host() {
    let Some(mut bundle) = Bundle::shell("cat /etc/hosts") else {
        return;
    };
    let canary = bundle.canary();
    symlink(canary.join("new"), bundle.rootfs().join("etc/hosts")).unwrap();
    fs::write(bundle.dir().join("hosts"), "names\n").unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/etc/hosts", "source": "hosts", "options": ["bind"]}));
    assert_eq!(bundle.run().stdout, "names\n");
    bundle.assert_canary_untouched();
}

#[test]
fn tmpfs_without_a_mode_has_that_of_the_directory_it_hides() {
    let Some(mut bundle) = Bundle::shell("stat -c %a /box /own /none") else {
        return;
    };
    for name in ["box", "own"] {
        let dir = bundle.rootfs().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o2710)).unwrap();
    }
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    for (path, options) in [
        ("/box", json!(["nosuid"])),
        ("/own", json!(["mode=1500"])),
        ("/none", json!([])),
    ] {
        mounts.push(
            json!({"destination": path, "type": "tmpfs", "source": "tmpfs",
            "options": options}),
        );
    }
    let run = bundle.run();
    assert_eq!(run.stdout, "2710\n1500\n1777\n", "{}", run.stderr);
}

#[test]
fn device_directory_can_be_read_only() {
    let Some(mut bundle) = Bundle::shell("echo x > /dev/null && ! echo x > /dev/new && echo done")
    else {
        return;
    };
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    let dev = mounts
        .iter_mut()
        .find(|mount| mount["destination"] == "/dev");
    let options = dev.unwrap()["options"].as_array_mut().unwrap();
    options.push(json!("ro"));
    let run = bundle.run();
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "done\n"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("Read-only file system"),
        "{}",
        run.stderr
    );
}

#[test]
fn mount_that_is_to_be_shared_is_shared_inside() {
    let Some(mut bundle) = Bundle::shell("grep ' /data ' /proc/self/mountinfo") else {
        return;
    };
    let source = bundle.canary();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/data", "source": source, "options": ["bind", "shared"]}));
    let run = bundle.run();
    assert!(
        run.stdout.contains(" shared:"),
        "{} {}",
        run.stdout,
        run.stderr
    );
}

#[test]
fn path_that_is_masked_twice_is_mounted_over_once() {
    let Some(mut bundle) = Bundle::shell("grep -c /secret /proc/self/mounts") else {
        return;
    };
    fs::create_dir(bundle.rootfs().join("secret")).unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/secret", "/secret"]);
    assert_eq!(bundle.run().stdout, "1\n");
}

#[test]
fn root_without_pivot_leaves_no_view_of_the_kernel_behind() {
    let script = "unshare -mrpf sh -c 'mount -t proc none /proc && echo mounted'";
    let Some(mut bundle) = Bundle::shell(script) else {
        return;
    };
    symlink("busybox", bundle.rootfs().join("bin/unshare")).unwrap();
    for set in ["bounding", "permitted", "effective"] {
        let names = bundle.config["process"]["capabilities"][set].as_array_mut();
        names.unwrap().push(json!("CAP_SETFCAP"));
    }
    bundle.write();
    let run = bundle.oci(&["run", "--no-pivot", "one"]);
    assert_eq!(
        run.stdout, "",
        "a procfs that hides nothing could be mounted"
    );
    assert!(run.stderr.contains("ermission denied"), "{}", run.stderr);
    // The same with a root that is pivoted to.
    let run = bundle.oci(&["run", "one"]);
    assert!(run.stdout.is_empty() && run.code != 0, "{}", run.stderr);
}

#[test]
fn root_of_the_host_s_mount_namespace_is_not_made_read_only() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    bundle.config["root"]["readonly"] = json!(true);
    let run = bundle.run();
    assert!(
        run.code == 1 && run.stderr.contains("`root.readonly`"),
        "{}",
        run.stderr
    );
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(bundle.rootfs().to_str().unwrap()));
}

#[test]
fn destination_that_names_the_place_on_the_host_is_inside_the_root() {
    let Some(mut bundle) = Bundle::shell("cat /data/file") else {
        return;
    };
    let source = bundle.canary();
    let place = bundle.rootfs().join("data");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": place, "source": source, "options": ["bind", "ro"]}));
    let run = bundle.run();
    assert_eq!(run.stdout, "untouched", "{}", run.stderr);
}

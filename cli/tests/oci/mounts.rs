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

/// A bundle that shares the mount namespace of whoever runs it, which is one of its own.
fn without_mount_namespace(script: &str) -> Option<Bundle> {
    let mut bundle = Bundle::shell(script)?;
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    Some(bundle)
}

/// Runs a shell script in a mount namespace of its own; `ketch` are the words of the command line.
fn beside(bundle: &Bundle, script: &str) -> (i32, String) {
    bundle.write();
    let ketch = bundle.command(&[]);
    let words = std::iter::once(ketch.get_program()).chain(ketch.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let script = format!("ketch() {{ {} \"$@\"; }}\n{script}", words.join(" "));
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .current_dir(bundle.dir())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(
            ketch
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(text).unwrap(),
    )
}

#[test]
fn mounts_in_the_host_s_namespace_go_with_the_container() {
    let Some(bundle) = without_mount_namespace("sleep 1000") else {
        return;
    };
    let id = bundle.id();
    let script = format!(
        "mkdir -p rootfs/own && mount -t tmpfs mine rootfs/own
        mounts() {{ grep -c ' {root}/' /proc/self/mounts; }}
        mounts
        ketch create {id} </dev/null >/dev/null 2>&1 || exit 7
        test $(mounts) -gt 1 && echo more
        ketch delete --force {id} || exit 8
        mounts
        ketch run {id} >/dev/null 2>&1 </dev/null & wait=$!
        while test $(mounts) -lt 4; do sleep 0.05; done
        ketch kill {id} KILL; wait $wait
        grep ' {root}/' /proc/self/mounts",
        root = bundle.rootfs().display(),
    );
    let (code, text) = beside(&bundle, &script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, &lines[..3]), (0, &["1", "more", "1"][..]), "{text}");
    // The one that was there before.
    assert!(lines.len() == 4 && lines[3].starts_with("mine "), "{text}");
}

#[test]
fn failed_start_leaves_no_mount_in_the_host_s_namespace() {
    let Some(mut bundle) = without_mount_namespace("true") else {
        return;
    };
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/x", "source": "/does/not/exist", "options": ["bind"]}));
    let script = format!(
        "ketch run {}; grep -c ' {}/' /proc/self/mounts",
        bundle.id(),
        bundle.rootfs().display()
    );
    let (_, text) = beside(&bundle, &script);
    assert!(text.contains("/does/not/exist"), "{text}");
    assert!(text.starts_with("0\n"), "{text}");
    assert!(!bundle.is_there());
}

#[test]
fn bind_of_the_root_s_own_directory_shows_what_was_mounted_there() {
    let Some(mut bundle) = Bundle::shell("cat /again/file; stat -c %u /again/file") else {
        return;
    };
    let source = bundle.canary();
    bundle.open_to_everybody();
    for name in ["data", "again"] {
        fs::create_dir(bundle.rootfs().join(name)).unwrap();
    }
    // A link in the image leads nowhere but into the image.
    symlink("/data", bundle.rootfs().join("link")).unwrap();
    let inside = bundle.rootfs().join("link");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/data", "source": source, "options": ["bind"]}));
    mounts.push(json!({"destination": "/again", "source": inside, "options": ["bind"]}));
    let run = bundle.run();
    assert_eq!(run.stdout, "untouched0\n", "{}", run.stderr);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    for map in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][map] =
            json!([{"containerID": 0, "hostID": 400_000, "size": 70_000}]);
    }
    let run = bundle.run();
    assert_eq!(run.stdout, "untouched65534\n", "{}", run.stderr);
}

//! The security checklist on the OCI runtime command line. Each test is called after the row that
//! it covers; "untouched" means a tree of the host's that is the same afterwards.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::bundle::Bundle;
use serde_json::json;
use testkit::swap;

/// How often a racer gets its chance.
const RACES: usize = 60;

fn core_pattern() -> String {
    fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap()
}

#[test]
fn s01_descriptor_of_the_host_is_no_working_directory() {
    let Some(mut bundle) = Bundle::shell("ls /proc/self/fd; pwd -P") else {
        return;
    };
    let leaked = File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let run = bundle.run();
    // 3 is the directory that `ls` itself has open.
    assert_eq!(run.stdout, "0\n1\n2\n3\n/\n", "{}", run.stderr);
    for number in 0..24 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let run = bundle.run();
        assert_ne!(run.code, 0, "{number}: {}", run.stdout);
    }
    drop(leaked);
}

#[test]
fn s02_own_executable_cannot_be_written() {
    let Some(bundle) = Bundle::shell("true") else {
        return;
    };
    assert_eq!(bundle.create().code, 0);
    let exe = format!("/proc/{}/exe", bundle.state("pid"));
    assert!(File::options().write(true).open(&exe).is_err());
    // That it is being executed would end with the process; that its mount is read-only stays.
    let flags = rustix::fs::statvfs(&exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[test]
fn s03_null_device_of_the_image_hides_nothing_else() {
    let Some(mut bundle) = Bundle::shell("cat /proc/kcore /proc/keys") else {
        return;
    };
    let before = core_pattern();
    bundle.without_mount("/dev");
    for name in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(name);
    }
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink(
        "/proc/sys/kernel/core_pattern",
        bundle.rootfs().join("dev/null"),
    )
    .unwrap();
    let run = bundle.run();
    assert!(run.code != 0 || run.stdout.is_empty(), "{}", run.stdout);
    assert_eq!(core_pattern(), before);
}

#[test]
fn s05_procfs_is_never_where_the_image_wants_it() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let canary = bundle.canary();
    for name in ["proc", "sys"] {
        let link = bundle.rootfs().join(name);
        symlink(&canary, &link).unwrap();
        let run = bundle.run();
        assert_ne!(run.code, 0, "{name}");
        assert!(run.stderr.contains("symbolic link"), "{}", run.stderr);
        fs::remove_file(link).unwrap();
    }
    // A sysctl goes to the kernel's procfs although the container's is a tmpfs.
    bundle.without_mount("/proc");
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}));
    bundle.config["linux"]["sysctl"] = json!({"kernel.msgmax": "4096"});
    bundle.config["process"]["args"] = json!(["ls", "/proc"]);
    let run = bundle.run();
    assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
    bundle.assert_canary_untouched();
}

#[test]
fn s06_device_directory_that_is_a_link_stays_inside() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let canary = bundle.canary();
    for name in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(name);
    }
    let dev = bundle.rootfs().join("dev");
    symlink(&canary, &dev).unwrap();
    bundle.run();
    bundle.assert_canary_untouched();
    // And swapped during the start.
    let link = bundle.rootfs().join("swap");
    fs::remove_file(&dev).unwrap();
    fs::create_dir(&dev).unwrap();
    symlink(&canary, &link).unwrap();
    swap(&dev, &link, || {
        for _ in 0..RACES {
            bundle.run();
        }
    });
    bundle.assert_canary_untouched();
}

#[test]
fn s07_s08_mount_target_swapped_for_a_link_stays_inside() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let canary = bundle.canary();
    let volume = bundle.cx.path().join("volume");
    fs::create_dir_all(volume.join("dir")).unwrap();
    symlink(&canary, volume.join("link")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/volume", "type": "bind", "source": volume,
        "options": ["rbind"]}),
    );
    mounts.push(
        json!({"destination": "/volume/dir/new/below", "type": "tmpfs",
        "source": "tmpfs"}),
    );
    swap(&volume.join("dir"), &volume.join("link"), || {
        for _ in 0..RACES {
            bundle.run();
        }
    });
    bundle.assert_canary_untouched();
}

#[test]
fn s09_working_directory_behind_a_link_is_made_inside() {
    let Some(mut bundle) = Bundle::shell("pwd -P") else {
        return;
    };
    let canary = bundle.canary();
    for target in [canary.to_str().unwrap(), "../../../../../../canary"] {
        let link = bundle.rootfs().join("w");
        symlink(target, &link).unwrap();
        bundle.config["process"]["cwd"] = json!("/w/new");
        bundle.run();
        bundle.assert_canary_untouched();
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn s11_user_of_exec_is_a_number_and_never_overflows() {
    let Some(bundle) = Bundle::shell("sleep 1000") else {
        return;
    };
    fs::write(
        bundle.rootfs().join("etc/passwd"),
        "1234:x:0:0::/:/bin/sh\n",
    )
    .unwrap();
    bundle.create();
    bundle.oci(&["start", "one"]);
    for bad in [
        "4294967295",
        "4294967296",
        "1000:4294967296",
        " 0",
        "+0",
        "0x0",
        "",
        "root",
        ":0",
    ] {
        let run = bundle.oci(&["exec", "-u", bad, "one", "id", "-u"]);
        assert_ne!(run.code, 0, "{bad}: {}", run.stdout);
    }
    let run = bundle.oci(&["exec", "-u", "1234", "one", "id", "-u"]);
    assert_eq!(run.stdout, "1234\n", "{}", run.stderr);
}

#[test]
fn s12_group_that_is_denied_is_denied() {
    let Some(mut bundle) = Bundle::shell("id -G; cat /secret") else {
        return;
    };
    let secret = bundle.rootfs().join("secret");
    fs::write(&secret, "told").unwrap();
    std::os::unix::fs::chown(&secret, None, Some(777)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o604);
    fs::set_permissions(&secret, mode).unwrap();
    bundle.config["process"]["user"] = json!({"uid": 5, "gid": 5, "additionalGids": [777]});
    bundle.config["process"]["capabilities"] = json!({});
    let run = bundle.run();
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (1, "5 777\n"),
        "{}",
        run.stderr
    );
}

#[test]
fn s13_no_capability_is_inheritable() {
    let Some(bundle) = Bundle::shell("grep CapInh /proc/self/status; sleep 1000") else {
        return;
    };
    const NONE: &str = "CapInh:\t0000000000000000\n";
    bundle.create();
    bundle.oci(&["start", "one"]);
    for extra in [&[][..], &["--cap", "CAP_NET_RAW"]] {
        let mut args = vec!["exec"];
        args.extend(extra);
        args.extend(["one", "grep", "CapInh", "/proc/self/status"]);
        assert_eq!(bundle.oci(&args).stdout, NONE);
    }
}

#[test]
fn s14_block_devices_of_the_host_cannot_be_opened() {
    let script = "mknod /b b 254 0 && dd if=/b of=/dev/null count=1; cat /proc/kcore | dd count=1; \
                  ls /sys/firmware /proc/scsi /proc/acpi; cat /dev/zero | dd count=1 of=/dev/null";
    let Some(mut bundle) = Bundle::shell(script) else {
        return;
    };
    let sets = json!(["CAP_MKNOD"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": sets, "permitted": sets, "effective": sets});
    let run = bundle.run();
    let refused = run.stderr.contains("Operation not permitted");
    assert!(refused, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("0+0 records") && run.stderr.contains("1+0 records"));
}

#[test]
fn s16_specification_of_many_kilobytes_is_taken_whole() {
    let Some(mut bundle) = Bundle::shell("echo ${#LONG} $LAST; readlink /proc/self/ns/net") else {
        return;
    };
    let mut env = vec![
        format!("LONG={}", "x".repeat(100_000)),
        "PATH=/bin".to_owned(),
    ];
    env.extend((0..2000).map(|number| format!("V{number}={}", "y".repeat(100))));
    env.push("LAST=1".to_owned());
    bundle.config["process"]["env"] = json!(env);
    let run = bundle.run();
    let mut lines = run.stdout.lines();
    assert_eq!(lines.next(), Some("100000 1"), "{}", run.stderr);
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(lines.next(), host.to_str());
}

#[test]
fn s17_filter_gives_the_error_that_it_names() {
    let Some(mut bundle) = Bundle::shell("mkdir /a; mkdir /b") else {
        return;
    };
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
    });
    let run = bundle.run();
    assert_eq!(
        run.stderr.matches("Function not implemented").count(),
        2,
        "{}",
        run.stderr
    );
}

#[test]
fn s42_no_socket_of_ours_is_in_the_abstract_namespace() {
    let Some(mut bundle) = Bundle::shell("cat /proc/net/unix") else {
        return;
    };
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let run = bundle.run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!run.stdout.contains("@ketch"), "{}", run.stdout);
}

#[test]
fn s45_output_that_nobody_reads_holds_the_program_only() {
    let Some(bundle) = Bundle::shell("sleep 1000") else {
        return;
    };
    bundle.create();
    bundle.oci(&["start", "one"]);
    let mut child = bundle
        .command(&[
            "exec",
            "one",
            "dd",
            "if=/dev/zero",
            "bs=1048576",
            "count=1024",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It has begun to write, and then gets no further than its pipe.
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 1]).unwrap();
    let statm = fs::read_to_string(format!("/proc/{}/statm", child.id())).unwrap();
    let resident: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(resident * 4096 < 16 << 20, "{statm}");
    drop(output);
    // SIGPIPE ends it.
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
    assert_eq!(bundle.state("status"), "running");
}

//! systemd as the machine's first process, with a message bus and nothing else: the script is a
//! service, and ordinary users can have a systemd of their own.

use std::path::Path;

use super::Vm;

/// The programs, at the places where the machine that builds has them.
const PROGRAMS: [&str; 4] = [
    "/lib/systemd/systemd",
    "/usr/bin/dbus-daemon",
    "/usr/bin/systemctl",
    "/usr/bin/systemd-run",
];

/// What the bus is allowed to do.
const BUS_FILES: [&str; 3] = [
    "/usr/share/dbus-1/system.conf",
    "/usr/share/dbus-1/session.conf",
    "/usr/share/dbus-1/system.d/org.freedesktop.systemd1.conf",
];

/// Units that pull nothing else in: path, text.
const UNITS: [(&str, &str); 8] = [
    (
        "system/script.target",
        "[Unit]\nDefaultDependencies=no\nWants=script.service dbus.socket\n",
    ),
    (
        "system/script.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.service\nAfter=dbus.service\n\
         [Service]\nType=oneshot\nExecStart=/bin/busybox sh /start-script\n",
    ),
    (
        "system/dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    ),
    (
        "system/dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n\
         [Service]\nType=notify\nNotifyAccess=main\n\
         ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile \
         --systemd-activation --nosyslog\n",
    ),
    (
        "system/user@.service",
        "[Unit]\nDefaultDependencies=no\n\
         [Service]\nUser=%i\nType=notify\nSlice=user-%i.slice\nDelegate=yes\nKillMode=mixed\n\
         Environment=XDG_RUNTIME_DIR=/run/user/%i HOME=/home/user\n\
         ExecStart=/lib/systemd/systemd --user\n",
    ),
    (
        "user/default.target",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.service\nAfter=dbus.service\n",
    ),
    (
        "user/dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%t/bus\n",
    ),
    (
        "user/dbus.service",
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n\
         [Service]\nType=notify\nNotifyAccess=main\n\
         ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile \
         --systemd-activation --nosyslog\n",
    ),
];

/// Users that the bus and the tests know; `user` has subordinate ids nowhere.
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nmessagebus:x:101:101::/:/bin/false\n\
                      user:x:1000:1000::/home/user:/bin/sh\n";
const GROUP: &str = "root:x:0:\nmessagebus:x:101:\nuser:x:1000:\n";

/// What the first process becomes.
pub(super) const EXEC: &str = "exec /lib/systemd/systemd --unit=script.target --show-status=no \
                               --log-target=kmsg --log-level=notice";

/// Whether this machine has the programs.
pub(crate) fn is_here() -> bool {
    let files = PROGRAMS.iter().chain(&BUS_FILES);
    files.into_iter().all(|path| Path::new(path).exists())
}

impl Vm {
    /// systemd is the first process, with the system's message bus. The script runs as a service of
    /// it; a user with the number 1000 can have a manager (`user@1000.service`).
    ///
    /// # Panics
    /// Without [`crate::Need::Systemd`].
    #[must_use]
    pub fn systemd(mut self) -> Self {
        for program in PROGRAMS {
            self = self.program(program, program);
        }
        for file in BUS_FILES {
            self = self.file(file, &std::fs::read(file).unwrap(), 0o644);
        }
        for (path, text) in UNITS {
            let path = format!("etc/systemd/{path}");
            self = self.file(&path, text.as_bytes(), 0o644);
        }
        for (path, text) in [
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/os-release", "ID=ketch-test\n"),
        ] {
            self = self.file(path, text.as_bytes(), 0o644);
        }
        self.is_systemd = true;
        self.archive.directory("home/user");
        self
    }
}

//! The talk with systemd about one scope (`org.freedesktop.systemd1(5)`).
//!
//! A scope begins with a process, and the container's init does not exist yet: it is cloned into the
//! scope's group. Until then a process of ours holds the scope, which ends with its standard input.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxResources, Spec};

use super::bus::{Bus, Method};
use super::name::{Manager, Names};
use super::property::{self, Context, Property};
use super::wire::Value;
use super::{SystemdError, annotation};
use crate::owner;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// systemd's default, and the kernel's.
const PERIOD_US: u64 = 100_000;

/// A scope, held by a process of ours.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its unit.
    pub(crate) unit: String,
    /// Its group, below `/sys/fs/cgroup`, with a leading slash.
    pub(crate) control_group: String,
    holder: Holder,
}

impl Held {
    /// Has systemd make the scope of a container; `program` is `ketch-init`.
    pub(crate) fn start(spec: &Spec, id: &str, program: &Path) -> Result<Self, SystemdError> {
        super::check()?;
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let resources = linux.and_then(|linux| linux.resources().clone());
        let mut systemd = Systemd::connect()?;
        let names = Names::new(path, id, systemd.manager)?;
        let context = systemd.context(PERIOD_US)?;
        let limits = property::of_resources(&resources.unwrap_or_default(), context)?;
        let asked = annotation::properties(spec.annotations().as_ref().unwrap_or(&HashMap::new()))?;
        let holder = Holder::start(program).map_err(SystemdError::Holder)?;
        let mut properties = own_properties(&names, id, holder.pid());
        properties.extend(limits);
        properties.extend(asked);
        systemd.start(&names.scope, &properties)?;
        Ok(Self {
            control_group: systemd.control_group(&names.scope)?,
            unit: names.scope,
            holder,
        })
    }

    /// Leaves the holder to the program that takes over: its number, and that of a descriptor, at
    /// least `lowest`, whose closing ends it.
    pub(crate) fn pass_on(mut self, lowest: i32) -> io::Result<(i32, i32)> {
        let pid = self.holder.pid();
        let end = self.holder.end.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let end = sys::exec::move_descriptor_above(end.as_fd(), lowest)?;
        rustix::io::fcntl_setfd(&end, rustix::io::FdFlags::empty())?;
        self.holder.child = None;
        let number = end.as_raw_fd();
        // It stays open for the program that takes over.
        let _number = end.into_raw_fd();
        Ok((pid, number))
    }
}

/// What every scope has.
fn own_properties(names: &Names, id: &str, holder: i32) -> Vec<Property> {
    let pid = u32::try_from(holder).unwrap_or(0);
    let own = [
        ("Description", Value::Text(format!("ketch container {id}"))),
        ("Slice", Value::text(&names.slice)),
        ("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid)])),
        // The group below is the container's, and ours.
        ("Delegate", Value::Bool(true)),
        ("DefaultDependencies", Value::Bool(false)),
        // A scope that ended by a kill for want of memory would be kept as failed.
        ("CollectMode", Value::text("inactive-or-failed")),
        ("MemoryAccounting", Value::Bool(true)),
        ("CPUAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
    ];
    own.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Changes the limits of a scope, as systemd keeps them. When this returns systemd has written what
/// it writes to the group.
pub(crate) fn change(
    unit: &str,
    group: &Path,
    resources: &LinuxResources,
) -> Result<(), SystemdError> {
    let mut systemd = Systemd::connect()?;
    let context = systemd.context(period_of(group))?;
    let properties = property::of_resources(resources, context)?;
    if properties.is_empty() {
        return Ok(());
    }
    // Until the next boot: a scope lives no longer.
    let args = [Value::text(unit), Value::Bool(true), list(&properties)];
    systemd.call("change the limits of the scope", "SetUnitProperties", &args)?;
    // It writes between two calls.
    systemd.unit(unit).map(drop)
}

/// The period of the group's quota.
fn period_of(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("cpu.max")).unwrap_or_default();
    let period = text.split_whitespace().nth(1);
    period
        .and_then(|text| text.parse().ok())
        .unwrap_or(PERIOD_US)
}

/// How long systemd may take to see that a scope is empty.
const ENDING: Duration = Duration::from_secs(10);

/// How long it is left alone meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

/// How often a scope is told to end: a job of systemd's own may come between.
const STOPS: u32 = 10;

/// Ends a scope and waits until it is gone. One that is gone is no error.
pub(crate) fn stop(unit: &str) -> Result<(), SystemdError> {
    let mut systemd = Systemd::connect()?;
    systemd.watch_jobs()?;
    let args = [Value::text(unit), Value::text("replace")];
    for _ in 0..STOPS {
        let job = match systemd.call("stop the scope", "StopUnit", &args) {
            Err(error) if error.is_no_such_unit() => return Ok(()),
            other => other?,
        };
        // Whatever its result, the unit that is left is what counts.
        systemd.wait_for(&job)?;
        if !systemd.is_active(unit)? {
            break;
        }
    }
    systemd.reset(unit)
}

/// systemd, as a connection to the bus that it is on.
struct Systemd {
    bus: Bus,
    manager: Manager,
}

impl Systemd {
    fn connect() -> Result<Self, SystemdError> {
        let (manager, socket) = match owner::uid() {
            0 => (
                Manager::System,
                PathBuf::from("/run/dbus/system_bus_socket"),
            ),
            uid => (Manager::User, PathBuf::from(format!("/run/user/{uid}/bus"))),
        };
        let bus = Bus::connect(&socket)?;
        Ok(Self { bus, manager })
    }

    fn method<'a>(interface: &'a str, path: &'a str, member: &'a str) -> Method<'a> {
        Method {
            destination: "org.freedesktop.systemd1",
            path,
            interface,
            member,
        }
    }

    fn call(
        &mut self,
        what: &str,
        member: &str,
        args: &[Value],
    ) -> Result<Vec<Value>, SystemdError> {
        let method = Self::method(MANAGER, "/org/freedesktop/systemd1", member);
        self.bus.call(what, method, args)
    }

    /// A property of an object.
    fn property(
        &mut self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<String, SystemdError> {
        let method = Self::method("org.freedesktop.DBus.Properties", path, "Get");
        let args = [Value::text(interface), Value::text(name)];
        let what = format!("tell its `{name}`");
        let values = self.bus.call(&what, method, &args)?;
        match values.as_slice() {
            [Value::Variant(value)] => value.as_text().map(str::to_owned),
            _ => None,
        }
        .ok_or(SystemdError::Malformed("a property that is no text"))
    }

    fn context(&mut self, period_us: u64) -> Result<Context, SystemdError> {
        let text = self.property("/org/freedesktop/systemd1", MANAGER, "Version")?;
        Ok(Context {
            manager: self.manager,
            version: version_number(&text),
            period_us,
        })
    }

    /// From now on systemd tells us of jobs that end.
    fn watch_jobs(&mut self) -> Result<(), SystemdError> {
        self.bus.watch(MANAGER, "JobRemoved")?;
        self.call("tell of its jobs", "Subscribe", &[]).map(drop)
    }

    /// Starts a scope and waits until it is there.
    fn start(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        self.watch_jobs()?;
        let auxiliary = Value::Array("(sa(sv))".to_owned(), Vec::new());
        let args = [
            Value::text(unit),
            Value::text("fail"),
            list(properties),
            auxiliary,
        ];
        let what = format!("start the scope `{unit}`");
        let deadline = Instant::now() + ENDING;
        let job = loop {
            match self.call(&what, "StartTransientUnit", &args) {
                Err(error) if error.is_unit_exists() => {
                    // One that has failed before is in the way until it is forgotten, one whose group is
                    // gone until systemd has seen that.
                    self.reset(unit)?;
                    if Instant::now() >= deadline || !self.is_ending(unit)? {
                        break self.call(&what, "StartTransientUnit", &args)?;
                    }
                    thread::sleep(PAUSE);
                }
                other => break other?,
            }
        };
        match self.wait_for(&job)?.as_str() {
            "done" => Ok(()),
            result => Err(SystemdError::Job {
                what,
                result: result.to_owned(),
            }),
        }
    }

    /// Whether a scope has no control group any more.
    fn is_ending(&mut self, unit: &str) -> Result<bool, SystemdError> {
        let path = match self.unit(unit) {
            Err(error) if error.is_no_such_unit() => return Ok(true),
            other => other?,
        };
        let group = self.property(&path, "org.freedesktop.systemd1.Scope", "ControlGroup")?;
        let group = group.trim_start_matches('/');
        Ok(group.is_empty() || !Path::new("/sys/fs/cgroup").join(group).exists())
    }

    /// Waits until a job has ended, and gives its result.
    fn wait_for(&mut self, job: &[Value]) -> Result<String, SystemdError> {
        let job = job.first().cloned();
        let job = job.ok_or(SystemdError::Malformed("no job"))?;
        // Its number, itself, its unit, its result.
        let values = self
            .bus
            .wait_for("JobRemoved", |values| values.get(1) == Some(&job))?;
        let result = values.get(3).and_then(Value::as_text);
        result
            .map(str::to_owned)
            .ok_or(SystemdError::Malformed("a job without a result"))
    }

    fn is_active(&mut self, unit: &str) -> Result<bool, SystemdError> {
        let path = match self.unit(unit) {
            Err(error) if error.is_no_such_unit() => return Ok(false),
            other => other?,
        };
        let state = match self.property(&path, "org.freedesktop.systemd1.Unit", "ActiveState") {
            // It has gone in between.
            Err(error) if error.is_no_such_unit() => return Ok(false),
            other => other?,
        };
        Ok(state != "inactive" && state != "failed")
    }

    /// Forgets that a unit has failed.
    fn reset(&mut self, unit: &str) -> Result<(), SystemdError> {
        let args = [Value::text(unit)];
        match self.call("forget the scope", "ResetFailedUnit", &args) {
            Err(error) if error.is_no_such_unit() => Ok(()),
            other => other.map(drop),
        }
    }

    /// The object of a unit.
    fn unit(&mut self, unit: &str) -> Result<String, SystemdError> {
        let values = self.call("know the scope", "GetUnit", &[Value::text(unit)])?;
        let path = values.first().and_then(Value::as_text);
        path.map(str::to_owned)
            .ok_or(SystemdError::Malformed("a unit without a path"))
    }

    fn control_group(&mut self, unit: &str) -> Result<String, SystemdError> {
        let path = self.unit(unit)?;
        let group = self.property(&path, "org.freedesktop.systemd1.Scope", "ControlGroup")?;
        let is_below = group.starts_with('/') && group.len() > 1;
        match is_below && !group.split('/').any(|part| part == "..") {
            true => Ok(group),
            false => Err(SystemdError::Malformed("a scope without a control group")),
        }
    }
}

/// Properties as calls take them.
fn list(properties: &[Property]) -> Value {
    let pair = |(name, value): &Property| {
        Value::Struct(vec![Value::text(name), Value::variant(value.clone())])
    };
    Value::Array("(sv)".to_owned(), properties.iter().map(pair).collect())
}

/// The number at the beginning of `252.38-1~deb12u1`, or after the letter of `v252`.
fn version_number(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits
        .get(..end.unwrap_or(digits.len()))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// A process that ends with its standard input.
#[derive(Debug)]
struct Holder {
    child: Option<Child>,
    end: Option<ChildStdin>,
    pid: u32,
}

impl Holder {
    fn start(program: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg("hold")
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            end: child.stdin.take(),
            pid: child.id(),
            child: Some(child),
        })
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.pid).unwrap_or(0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(mut child) = self.child.take() {
            // It has nothing to fail at; the scope goes with it.
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_number_in_its_text() {
        assert_eq!(version_number("252.38-1~deb12u1"), 252);
        assert_eq!(version_number("v247.3-7"), 247);
        assert_eq!(version_number("devel"), 0);
    }

    #[test]
    fn holder_ends_when_it_is_dropped() {
        // Any program that reads its input to the end will do.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let holder = Holder {
            end: child.stdin.take(),
            pid,
            child: Some(child),
        };
        drop(holder);
        assert!(!Path::new(&format!("/proc/{pid}/stat")).exists());
    }
}

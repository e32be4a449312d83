//! A connection to a message bus (D-Bus Specification 0.43, "Authentication Protocol", "Message Bus
//! Specification"): calls that wait for their answer, and signals that came meanwhile.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::SystemdError;
use super::wire::{self, Field, Kind, Message, PREFIX, Value};

/// How long systemd has for an answer or a job: as long as other runtimes give it.
const PATIENCE: Duration = Duration::from_secs(30);

/// No line of the authentication is longer.
const MAX_LINE: usize = 1024;

/// A method.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// The bus itself.
const BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the bus whose socket is at `path`.
    pub(super) fn connect(path: &Path) -> Result<Self, SystemdError> {
        let connect = |source| SystemdError::Connect {
            bus: path.to_path_buf(),
            source,
        };
        let stream = UnixStream::connect(path).map_err(connect)?;
        stream
            .set_write_timeout(Some(PATIENCE))
            .map_err(SystemdError::Talk)?;
        let mut bus = Self {
            stream,
            serial: 0,
            signals: VecDeque::new(),
        };
        bus.authenticate()?;
        let hello = Method {
            member: "Hello",
            ..BUS
        };
        bus.call("take a client", hello, &[])?;
        Ok(bus)
    }

    /// The kernel tells the bus who we are; an empty answer says that this is who we claim to be. The
    /// number would be another one where this process stands in a user namespace.
    fn authenticate(&mut self) -> Result<(), SystemdError> {
        let deadline = Instant::now() + PATIENCE;
        self.send(b"\0AUTH EXTERNAL\r\n")?;
        self.expect_line("DATA", deadline)?;
        self.send(b"DATA\r\n")?;
        self.expect_line("OK", deadline)?;
        self.send(b"BEGIN\r\n")
    }

    fn expect_line(&mut self, word: &str, deadline: Instant) -> Result<(), SystemdError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE {
                return Err(SystemdError::Malformed("a line that is too long"));
            }
            // What follows is no part of the line, so byte by byte.
            let mut byte = [0];
            self.fill(&mut byte, deadline)?;
            line.extend(byte);
        }
        let line = String::from_utf8_lossy(&line);
        match line.split_whitespace().next() {
            Some(first) if first == word => Ok(()),
            _ => Err(SystemdError::Refused {
                what: "take this user as a client".to_owned(),
                name: String::new(),
                message: line.trim().to_owned(),
            }),
        }
    }

    /// Calls a method and gives what it returns. `what` it does, for the message when it does not.
    pub(super) fn call(
        &mut self,
        what: &str,
        method: Method<'_>,
        args: &[Value],
    ) -> Result<Vec<Value>, SystemdError> {
        let deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        let fields = [
            (Field::Path, Value::Path(method.path.to_owned())),
            (Field::Destination, Value::text(method.destination)),
            (Field::Interface, Value::text(method.interface)),
            (Field::Member, Value::text(method.member)),
        ];
        self.send(&wire::encode(Kind::Call, self.serial, &fields, args))?;
        loop {
            let message = self.receive(deadline)?;
            let answers = message.field(Field::ReplySerial) == Some(&Value::U32(self.serial));
            if answers && message.is(Kind::Return) {
                return message.values();
            }
            if answers && message.is(Kind::Error) {
                return Err(refusal(what, &message));
            }
            if message.is(Kind::Signal) {
                self.signals.push_back(message);
            }
        }
    }

    /// Asks for a signal of systemd's manager.
    pub(super) fn watch(&mut self, interface: &str, member: &str) -> Result<(), SystemdError> {
        let rule = format!("type='signal',interface='{interface}',member='{member}'");
        let add = Method {
            member: "AddMatch",
            ..BUS
        };
        self.call("tell of signals", add, &[Value::text(&rule)])?;
        Ok(())
    }

    /// The values of the first signal `member` that fits.
    pub(super) fn wait_for(
        &mut self,
        member: &str,
        fits: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>, SystemdError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let signal = match self.signals.pop_front() {
                Some(signal) => signal,
                None => self.receive(deadline)?,
            };
            let name = signal.field(Field::Member).and_then(Value::as_text);
            if signal.is(Kind::Signal) && name == Some(member) {
                let values = signal.values()?;
                if fits(&values) {
                    return Ok(values);
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), SystemdError> {
        self.stream.write_all(bytes).map_err(SystemdError::Talk)
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, SystemdError> {
        let mut bytes = vec![0; PREFIX];
        self.fill(&mut bytes, deadline)?;
        bytes.resize(wire::total_length(&bytes)?, 0);
        if let Some(rest) = bytes.get_mut(PREFIX..) {
            self.fill(rest, deadline)?;
        }
        wire::decode(&bytes)
    }

    fn fill(&mut self, mut room: &mut [u8], deadline: Instant) -> Result<(), SystemdError> {
        while !room.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SystemdError::Talk(io::ErrorKind::TimedOut.into()));
            }
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(room));
            match read {
                Ok(0) => return Err(SystemdError::Talk(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => room = room.get_mut(length..).unwrap_or_default(),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) => return Err(SystemdError::Talk(error)),
            }
        }
        Ok(())
    }
}

fn refusal(what: &str, message: &Message) -> SystemdError {
    let name = message.field(Field::ErrorName).and_then(Value::as_text);
    let name = name.unwrap_or_default().to_owned();
    let values = message.values().unwrap_or_default();
    let text = values.first().and_then(Value::as_text);
    SystemdError::Refused {
        what: what.to_owned(),
        message: text.map_or_else(|| name.clone(), str::to_owned),
        name,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// A bus that lets a client in, answers its first call and then sends these bytes.
    fn bus(answer: &'static [u8], then: Vec<u8>) -> (tempfile::TempDir, JoinHandle<()>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("bus")).unwrap();
        let serve = move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut expect = |bytes: &[u8]| {
                let mut got = vec![0; bytes.len()];
                client.read_exact(&mut got).unwrap();
                assert_eq!(got, bytes);
            };
            expect(b"\0AUTH EXTERNAL\r\n");
            client.write_all(answer).unwrap();
            if answer != b"DATA\r\n" {
                return;
            }
            let mut line = [0; 6];
            client.read_exact(&mut line).unwrap();
            client.write_all(b"OK 0123456789abcdef\r\n").unwrap();
            let mut begin = [0; 7];
            client.read_exact(&mut begin).unwrap();
            let mut prefix = [0; PREFIX];
            client.read_exact(&mut prefix).unwrap();
            let mut rest = vec![0; wire::total_length(&prefix).unwrap() - PREFIX];
            client.read_exact(&mut rest).unwrap();
            let fields = [(Field::ReplySerial, Value::U32(1))];
            let name = [Value::text(":1.7")];
            client
                .write_all(&wire::encode(Kind::Return, 1, &fields, &name))
                .unwrap();
            client.write_all(&then).unwrap();
        };
        (dir, thread::spawn(serve))
    }

    fn signal(values: &[Value]) -> Vec<u8> {
        let fields = [(Field::Member, Value::text("JobRemoved"))];
        wire::encode(Kind::Signal, 9, &fields, values)
    }

    #[test]
    fn signal_that_fits_is_waited_for_and_the_others_are_passed_over() {
        let then = [signal(&[Value::U32(1)]), signal(&[Value::U32(2)])].concat();
        let (dir, served) = bus(b"DATA\r\n", then);
        let mut bus = Bus::connect(&dir.path().join("bus")).unwrap();
        let found = bus.wait_for("JobRemoved", |values| values == [Value::U32(2)]);
        assert_eq!(found.unwrap(), [Value::U32(2)]);
        // Nothing more comes.
        assert!(matches!(
            bus.wait_for("JobRemoved", |_| true),
            Err(SystemdError::Talk(_))
        ));
        served.join().unwrap();
    }

    #[test]
    fn client_that_the_bus_does_not_want_is_told_so() {
        let (dir, served) = bus(b"REJECTED EXTERNAL\r\n", Vec::new());
        let error = Bus::connect(&dir.path().join("bus"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("REJECTED EXTERNAL"), "{error}");
        served.join().unwrap();
        let error = Bus::connect(&dir.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no message bus at"), "{error}");
    }
}

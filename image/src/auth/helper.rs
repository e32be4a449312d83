//! The protocol of Docker's credential helpers: programs named `docker-credential-<name>` that are
//! called with a verb, get their input on standard input and answer on standard output.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::config::{Credentials, Secret};
use crate::registry::RegistryError;

/// The longest answer of a helper: identity tokens have some kilobytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// How long a helper may take: it may ask a key ring, which may ask the user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The user name by which helpers say that the secret is an identity token.
pub(super) const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: Secret,
}

/// Asks `docker-credential-<helper>` for the credentials of `server`: the server's name on its
/// standard input, a JSON object on its standard output.
pub(super) fn get(helper: &str, server: &str) -> Result<Credentials, RegistryError> {
    let failed = failed(helper);
    let (succeeded, output) = call(helper, "get", format!("{server}\n"))?;
    if !succeeded {
        let text = String::from_utf8_lossy(&output).to_lowercase();
        if text.contains("credentials not found") {
            return Ok(Credentials::Anonymous);
        }
        return Err(failed(io::Error::other("it failed")));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| failed(io::Error::other("its answer has no name and secret")))?;
    Ok(match answer.username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(answer.secret),
        "" if answer.secret.expose().is_empty() => Credentials::Anonymous,
        _ => Credentials::Password {
            username: answer.username,
            password: answer.secret,
        },
    })
}

/// Gives the helper credentials to keep for `server`.
pub(super) fn store(
    helper: &str,
    server: &str,
    username: &str,
    secret: &Secret,
) -> Result<(), RegistryError> {
    let entry = serde_json::json!({
        "ServerURL": server, "Username": username, "Secret": secret.expose(),
    });
    let (succeeded, _) = call(helper, "store", entry.to_string())?;
    if succeeded {
        return Ok(());
    }
    Err(failed(helper)(io::Error::other("it failed")))
}

/// Makes the helper forget `server`. One that does not know it has nothing to forget.
pub(super) fn erase(helper: &str, server: &str) -> Result<(), RegistryError> {
    call(helper, "erase", format!("{server}\n")).map(drop)
}

fn failed(helper: &str) -> impl Fn(io::Error) -> RegistryError + use<> {
    let helper = helper.to_owned();
    move |source| RegistryError::CredentialHelper {
        helper: helper.clone(),
        source,
    }
}

/// Runs `docker-credential-<helper> <verb>`: whether it succeeded, and what it said.
fn call(helper: &str, verb: &str, input: String) -> Result<(bool, Vec<u8>), RegistryError> {
    let failed = failed(helper);
    let is_name = !helper.is_empty()
        && helper
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_name {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(&failed)?;
    let answer = talk(&mut child, input, HELPER_TIMEOUT);
    if answer.is_err() {
        stop(&mut child);
    }
    answer.map_err(failed)
}

/// Gives the child its input and collects its output, within `timeout` altogether.
fn talk(child: &mut Child, input: String, timeout: Duration) -> io::Result<(bool, Vec<u8>)> {
    let deadline = Instant::now() + timeout;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    // A thread, because a helper that hangs must not hang us; it ends with the pipe.
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let result = stdin
            .map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()))
            .or_else(|error| match error.kind() {
                // It answered without reading.
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            })
            .and_then(|()| {
                stdout.map_or(Ok(0), |pipe| {
                    pipe.take(MAX_ANSWER + 1).read_to_end(&mut output)
                })
            });
        // Nobody listens any more after the time-out.
        sender.send(result.map(|_| output)).is_ok()
    });
    let output = receiver
        .recv_timeout(timeout)
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if output.len() as u64 > MAX_ANSWER {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((wait_until(child, deadline)?, output))
}

/// Waits for its end; its output has ended already, so it is near. Not every system can wait for a
/// child and a deadline at once.
fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<bool> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn stop(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        tracing::warn!(%error, "cannot stop a credential helper");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talk_reads_the_answer_and_the_exit_code() {
        let run = |script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut child = run("read server; echo \"[$server]\"");
        let answer = talk(&mut child, "r.io\n".to_owned(), HELPER_TIMEOUT).unwrap();
        assert_eq!(answer, (true, b"[r.io]\n".to_vec()));
        let mut child = run("exit 3");
        assert!(
            !talk(&mut child, "r.io\n".to_owned(), HELPER_TIMEOUT)
                .unwrap()
                .0
        );
        let mut child = run("head -c 100000 /dev/zero");
        let error = talk(&mut child, "r.io\n".to_owned(), HELPER_TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        stop(&mut child);
        for script in ["exec cat /dev/zero >/dev/null", "exec >&-; read x; read y"] {
            let mut child = run(script);
            let pipe = child.stdin.take();
            let error =
                talk(&mut child, "r.io\n".to_owned(), Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            stop(&mut child);
            drop(pipe);
        }
    }
}

//! `Control/Session`: a session inside a call, for clients that share one session among builds.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::grpc::{Answer, Call, Code, Replies, Status, decode};
use super::session::Introduction;
use super::wire::session::BytesMessage;
use crate::daemon::Daemon;

/// How many bytes wait in each direction.
const BUFFER: usize = 256 << 10;

/// How much goes into one message.
const PIECE: usize = 32 << 10;

/// Serves a session until the call ends.
pub(super) async fn serve(
    daemon: &Arc<Daemon>,
    call: &mut Call,
    replies: &mut Replies,
) -> Result<Answer, Status> {
    let introduction = Introduction::read(&call.headers).map_err(Status::invalid)?;
    let sessions = &daemon.buildkit.sessions;
    sessions
        .check(&introduction)
        .map_err(|error| Status::new(Code::AlreadyExists, error))?;
    replies.begin()?;
    let (near, far) = tokio::io::duplex(BUFFER);
    let (mut read, mut write) = tokio::io::split(near);
    let failed = |error: std::io::Error| Status::internal(error.to_string());
    let messages = &mut call.messages;
    let inward = async {
        while let Some(bytes) = messages.next().await? {
            let message: BytesMessage = decode(bytes)?;
            write.write_all(&message.data).await.map_err(failed)?;
        }
        Ok(())
    };
    let outward = async {
        loop {
            let mut buffer = vec![0; PIECE];
            let length = read.read(&mut buffer).await.map_err(failed)?;
            if length == 0 {
                return Ok(());
            }
            buffer.truncate(length);
            let data = Bytes::from(buffer);
            replies.send(&BytesMessage { data }).await?;
        }
    };
    // Whichever ends, the session does; all can be dropped.
    let ended: Result<(), Status> = tokio::select! {
        () = sessions.keep(introduction, far) => Ok(()),
        ended = inward => ended,
        ended = outward => ended,
    };
    ended.map(|()| Answer::Streamed)
}

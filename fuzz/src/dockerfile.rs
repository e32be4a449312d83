//! What must hold for any Dockerfile.

use builder::{BuildError, Dockerfile};

/// A Dockerfile is parsed, or refused at a place that it has; instructions stand in order.
pub fn dockerfile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines = text.split('\n').count();
    match Dockerfile::parse("f", text) {
        Ok(file) => {
            let mut last = 0;
            for instruction in &file.instructions {
                assert!(last < instruction.line && instruction.line <= instruction.end);
                assert!(instruction.end <= lines);
                last = instruction.end;
            }
            drop(builder::lint(&file));
        }
        Err(error) => {
            let place = BuildError::place(&error).cloned();
            assert!(place.is_some_and(|place| (1..=lines.max(1)).contains(&place.line)));
        }
    }
}

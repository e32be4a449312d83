//! The Dockerfile language: from text to instructions with their places.
//!
//! Lines are joined first ([`lines`]), then each becomes an [`Instruction`] ([`parse`]). Variables
//! stay as they are written: what they stand for is known only when the instruction is carried out
//! ([`expand`]).

mod device;
pub(crate) mod expand;
mod flags;
mod health;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod parse;
mod words;

pub use heredoc::Heredoc;
pub use instruction::{
    Arg, CommandLine, Copy, Device, From, Health, Instruction, Kind, OnBuild, Run, Security, Source,
};
pub use lines::CheckDirective;
pub(crate) use lines::check as check_directive;
pub use mount::{MountKind, RunMount, Sharing};

pub(crate) use heredoc::is_announcement;
pub(crate) use parse::{instruction_of, is_identifier};

use crate::error::{BuildError, Place};

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its name, for messages.
    pub name: String,
    /// Its lines, for messages.
    pub lines: Vec<String>,
    /// The character that joins lines and takes the next one literally.
    pub escape: char,
    /// `# syntax=`.
    pub syntax: Option<String>,
    /// `# check=`.
    pub check: CheckDirective,
    /// What it says, in order.
    pub instructions: Vec<Instruction>,
    /// Lines with an empty line inside a continued instruction.
    pub empty_continuations: Vec<usize>,
}

impl Dockerfile {
    /// Parses the text of a Dockerfile; `name` is for messages.
    ///
    /// ```
    /// let file = builder::Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY app /\n")?;
    /// assert_eq!(file.instructions.len(), 2);
    /// # Ok::<(), builder::BuildError>(())
    /// ```
    ///
    /// # Errors
    /// With the place of what is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, BuildError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<String> = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned())
            .collect();
        let mut file = Self {
            name: name.to_owned(),
            lines,
            escape: '\\',
            syntax: None,
            check: CheckDirective::default(),
            instructions: Vec::new(),
            empty_continuations: Vec::new(),
        };
        let logical = lines::read(&mut file)?;
        let mut instructions = Vec::new();
        for line in &logical {
            instructions.push(parse::instruction(&file, line)?);
        }
        if instructions.is_empty() {
            let place = file.place(file.lines.len().max(1), 1);
            return Err(BuildError::at(place, "the file has no instructions"));
        }
        file.instructions = instructions;
        Ok(file)
    }

    /// A place in this file.
    pub(crate) fn place(&self, line: usize, column: usize) -> Place {
        Place {
            file: self.name.clone(),
            line,
            column,
            text: self
                .lines
                .get(line.saturating_sub(1))
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// The place of some text in the lines from `line` to `end`; their beginning when it is not there.
    pub(crate) fn place_of(&self, line: usize, end: usize, needle: &str) -> Place {
        let first = needle.split_whitespace().next().unwrap_or_default();
        for number in line..=end.max(line) {
            let text = self.lines.get(number.saturating_sub(1));
            if let (Some(text), false) = (text, first.is_empty())
                && let Some(at) = text.find(first)
            {
                let column = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
                return self.place(number, column);
            }
        }
        let indent = self.lines.get(line.saturating_sub(1)).map_or(0, |text| {
            text.chars().take_while(|c| c.is_whitespace()).count()
        });
        self.place(line, indent + 1)
    }
}

#[cfg(test)]
mod tests;

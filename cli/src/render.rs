//! Printing: data to standard output, everything else to standard error; errors in one form, with
//! their causes and a hint; control characters of images made harmless.

use std::io::{self, Write};
use std::process::ExitCode;

use image::ImageError;
use runtime::code;

use crate::failures;
use crate::template::TemplateError;

/// Docker's exit code for a template that cannot be used.
const BAD_TEMPLATE: u8 = 64;

/// A usage error: Docker's exit code for it is 125.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints an error with its causes and its hint, and gives the exit code: the error's own, or that
/// of the command.
pub(crate) fn failure(error: &anyhow::Error, otherwise: u8) -> ExitCode {
    if let Some(clap) = error.downcast_ref::<clap::Error>() {
        if clap.use_stderr() {
            usage(clap);
            return ExitCode::from(code::ENGINE);
        }
        // Help and version are no errors.
        drop(clap.print());
        return ExitCode::from(0);
    }
    let broken = error.downcast_ref::<io::Error>().map(io::Error::kind);
    if broken == Some(io::ErrorKind::BrokenPipe) {
        return ExitCode::from(0);
    }
    report(error);
    // Where no program's own code comes back, the engine's has no meaning.
    let own = failures::exit_code(error).filter(|_| otherwise == code::ENGINE);
    ExitCode::from(own.unwrap_or(if error.is::<Usage>() {
        code::ENGINE
    } else if error.is::<TemplateError>() {
        BAD_TEMPLATE
    } else {
        otherwise
    }))
}

/// Prints what is wrong with the arguments, on one line as every other error.
fn usage(clap: &clap::Error) {
    let text = clap.to_string();
    let lines = text.lines().take_while(|text| !text.is_empty());
    let words: Vec<&str> = lines.map(str::trim).collect();
    line(&clean(&words.join(" ")));
    line("hint: add --help to see what the command takes");
}

/// Prints an error with its causes and its hint.
pub(crate) fn report(error: &anyhow::Error) {
    let mut text = error.chain().map(ToString::to_string).collect::<Vec<_>>();
    text.dedup();
    line(&format!("error: {}", clean(&text.join(": "))));
    if let Some(hint) = hint(error) {
        line(&format!("hint: {}", clean(&hint)));
    }
}

fn hint(error: &anyhow::Error) -> Option<String> {
    let own = error
        .downcast_ref::<ImageError>()
        .and_then(ImageError::hint);
    own.or_else(|| failures::hint(error))
}

/// A line on standard error.
pub(crate) fn line(text: &str) {
    // Nobody is told when even that is closed.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// A line on standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Lines of output, written together.
pub(crate) fn print_lines(lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    print(&lines.join("\n"))
}

/// Text from images and containers without control characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Columns, each as wide as its widest cell, three spaces between.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        print(cells.join("   ").trim_end())?;
    }
    Ok(())
}

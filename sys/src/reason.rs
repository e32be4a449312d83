//! The words for an error of the kernel.

/// What the standard library puts before the number of an error.
const BEFORE: &str = " (os error ";

/// A message without the numbers of the kernel's errors: their words stand before them.
#[must_use]
pub fn without_numbers(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(BEFORE) {
        text.push_str(before);
        match after.split_once(')') {
            Some((number, after)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                rest = after;
            }
            // Somebody else's words.
            Some(_) | None => {
                text.push_str(BEFORE);
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_left_out_wherever_they_stand() {
        let one = std::io::Error::from_raw_os_error(2);
        let text = format!("cannot read `a`: {one}; cannot read `b`: {one} (twice)");
        assert_eq!(
            without_numbers(&text),
            "cannot read `a`: No such file or directory; \
             cannot read `b`: No such file or directory (twice)"
        );
        for other in ["", "plain", " (os error x)", "cut (os error 2"] {
            assert_eq!(without_numbers(other), other);
        }
    }
}

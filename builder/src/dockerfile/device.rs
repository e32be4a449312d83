//! `RUN --device`.

use engine::DeviceRequest;

use super::instruction::Device;

/// Parses the value of `--device`: `NAME[,required]`, or `name=NAME,required=true`.
pub(super) fn parse(text: &str) -> Result<Device, String> {
    let mut name = None;
    let mut required = false;
    for field in text.split(',') {
        match field.split_once('=') {
            None if field.eq_ignore_ascii_case("required") => required = true,
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                required = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(format!("`{field}` is neither true nor false")),
                };
            }
            Some((key, value)) if key.eq_ignore_ascii_case("name") && name.is_none() => {
                name = Some(value);
            }
            _ if name.is_none() => name = Some(field),
            _ => return Err(format!("`{field}` is no option of a device")),
        }
    }
    match name {
        Some(name) if DeviceRequest::is_cdi_name(name) => Ok(Device {
            name: name.to_owned(),
            required,
        }),
        Some(name) => Err(format!(
            "`{name}` is no name of a device: it is `vendor.com/class=name`"
        )),
        None => Err("a device needs a name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names_and_may_be_required() {
        let named = |name: &str, required| {
            let name = name.to_owned();
            Ok(Device { name, required })
        };
        let table = [
            ("v.com/c=d", named("v.com/c=d", false)),
            ("v.com/c=d,required", named("v.com/c=d", true)),
            ("name=v.com/c=d,required=false", named("v.com/c=d", false)),
            ("required,v.com/c=d", named("v.com/c=d", true)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text}");
        }
        for bad in [
            "",
            "/dev/fuse",
            "v.com/c=d,rw",
            "v.com/c=d,required=x",
            "required",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

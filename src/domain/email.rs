//! Addresses of e-mails.

/// The maximum number of addresses that get the alerts of a tenant.
pub const ALERT_ADDRESSES_MAX: usize = 10;
/// The maximum length of an address, by RFC 5321.
const ADDRESS_BYTES_MAX: usize = 254;
/// The maximum length of the part before the `@`.
const LOCAL_BYTES_MAX: usize = 64;

/// Checks an address of the form `name@host`. Accepts the usual characters only: no quoted names, no comments, no
/// addresses of hosts, and no other scripts than Latin. So an address can contain no line break and no second address.
///
/// # Errors
/// Returns the violated rule.
pub fn check_address(address: &str) -> Result<(), &'static str> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Err("must have at most 254 characters");
    }
    let Some((local, host)) = address.split_once('@') else {
        return Err("must be an e-mail address such as `ops@example.org`");
    };
    let is_local = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_{|}~-".contains(&byte);
    let has_empty_part = |text: &str| text.split('.').any(str::is_empty);
    let is_host_part = |part: &str| {
        part.len() <= 63
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_valid = local.len() <= LOCAL_BYTES_MAX
        && local.bytes().all(is_local)
        && !has_empty_part(local)
        && !has_empty_part(host)
        && host.split('.').all(is_host_part);
    if is_valid { Ok(()) } else { Err("must be an e-mail address such as `ops@example.org`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_addresses_are_valid() {
        for address in ["ops@example.org", "a.b+quota@mail.example.co.uk", "root@localhost"] {
            assert_eq!(check_address(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn address_contains_neither_header_nor_second_address() {
        let long = format!("{}@example.org", "a".repeat(65));
        for address in [
            "",
            "ops",
            "@example.org",
            "ops@",
            "a@b@c",
            "a.@example.org",
            "ops@-example.org",
            "a@example.org,b@example.org",
            "a@example.org\r\nBcc: b@example.org",
            "a b@example.org",
            "Ops <ops@example.org>",
            "\"a\"@example.org",
            "ops@example.org\n",
            "ä@example.org",
            "ops@[127.0.0.1]",
            &long,
        ] {
            assert!(check_address(address).is_err(), "{address:?}");
        }
    }
}

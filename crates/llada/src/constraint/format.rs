//! The formats of strings that are written: every text of a language here is one of its format; where a
//! format allows more, such as years before 1000 or quoted parts of addresses, that is not written.

use super::{ConstraintError, node::Node, pattern};

/// Formats of the standard that no language here has.
const UNWRITTEN: [&str; 8] = [
    "idn-email",
    "idn-hostname",
    "iri",
    "iri-reference",
    "json-pointer",
    "relative-json-pointer",
    "regex",
    "uri-template",
];

const TIME: &str =
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
/// Of the years 1000 to 2999.
const DATE: &str = "([12][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|\
    02-(0[1-9]|1[0-9]|2[0-8]))|([12][0-9](0[48]|[2468][048]|[13579][26])|(12|16|20|24|28)00)-02-29)";
const HOST: &str = "[a-z]([a-z0-9]{0,20}[a-z0-9])?(\\.[a-z]([a-z0-9]{0,20}[a-z0-9])?){1,3}";
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

/// What a format is worth.
pub(super) enum Format {
    /// The insides of strings that have it.
    Known(Node),
    /// One of the standard's that cannot be promised.
    Unwritten,
    /// None of the standard's, which then says nothing.
    Foreign,
}

/// The format of this name.
pub(super) fn named(name: &str) -> Result<Format, ConstraintError> {
    let regex = match name {
        "date" => DATE.into(),
        "time" => TIME.into(),
        "date-time" => format!("{DATE}T{TIME}"),
        "duration" => "P([1-9][0-9]{0,2}D(T[1-9][0-9]{0,2}[HMS])?|[1-9][0-9]{0,2}[WMY]|\
                       T[1-9][0-9]{0,2}[HMS])"
            .into(),
        "uuid" => "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".into(),
        "email" => format!("[A-Za-z0-9_+-]{{1,30}}(\\.[A-Za-z0-9_+-]{{1,30}})?@{HOST}"),
        "hostname" => HOST.into(),
        "ipv4" => format!("{BYTE}(\\.{BYTE}){{3}}"),
        "ipv6" => "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}".into(),
        "uri" | "uri-reference" => {
            format!(
                "https?://{HOST}(/[A-Za-z0-9._~-]+)*/?(\\?[A-Za-z0-9._~=&-]+)?(#[A-Za-z0-9._~-]+)?"
            )
        }
        _ if UNWRITTEN.contains(&name) => return Ok(Format::Unwritten),
        _ => return Ok(Format::Foreign),
    };
    // None has a character that a JSON string spells otherwise.
    Ok(Format::Known(pattern::whole(&regex)?))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{dfa::Dfa, nfa::Nfa},
        *,
    };

    #[test]
    fn formats_accept_what_has_them() {
        for (name, yes, no) in [
            (
                "date",
                &["2024-02-29", "2000-02-29", "1999-12-31"][..],
                &["2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01"][..],
            ),
            ("time", &["23:59:59Z", "00:00:00.5+01:30"], &["24:00:00Z", "12:00:00"]),
            ("date-time", &["2024-01-01T00:00:00Z"], &["2024-01-01 00:00:00Z"]),
            ("duration", &["P3D", "PT5M", "P1DT2H"], &["P", "PT"]),
            (
                "uuid",
                &["00112233-4455-6677-8899-aabbccddeeff"],
                &["00112233445566778899aabbccddeeff"],
            ),
            ("email", &["ann.o+x@example.org"], &["ann@", "@x.org", "a@b@c.d"]),
            ("ipv4", &["0.0.0.0", "255.249.199.99"], &["256.0.0.1", "01.2.3.4", "1.2.3"]),
            ("ipv6", &["0:0:0:0:0:0:0:1"], &["0:0:0:0:0:0:0"]),
            ("uri", &["https://a.example/b?c=d#e"], &["a.example", "https://"]),
        ] {
            let Ok(Format::Known(node)) = named(name) else { panic!("{name}") };
            let dfa = Dfa::of(&Nfa::of(&node).unwrap()).unwrap();
            assert!(yes.iter().all(|text| dfa.is_match(text.as_bytes())), "{name}");
            assert!(no.iter().all(|text| !dfa.is_match(text.as_bytes())), "{name}");
        }
        assert!(matches!(named("regex"), Ok(Format::Unwritten)));
        assert!(matches!(named("int64"), Ok(Format::Foreign)));
    }
}

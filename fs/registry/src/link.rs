//! The `Link` header (RFC 8288): where a list goes on.

/// The target of the first link whose relation is `next`, as it is written. What makes no sense is passed over.
pub(crate) fn next_link<'a>(headers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    headers.into_iter().find_map(next_of)
}

fn next_of(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (is_next, after) = parameters(after);
        if is_next {
            return Some(target);
        }
        rest = after;
    }
}

/// Whether the parameters of a link name the relation `next`, and what follows after the comma that ends them.
fn parameters(text: &str) -> (bool, &str) {
    let mut is_next = false;
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(after) = rest.strip_prefix(';') else {
            return (is_next, rest.strip_prefix(',').unwrap_or(rest));
        };
        let end = after.find(['=', ';', ',']).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let (value, after) = match after.strip_prefix('=') {
            Some(value) => parse_value(value.trim_start()),
            None => ("", after),
        };
        if name.trim().eq_ignore_ascii_case("rel") {
            is_next |= value.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        rest = after;
    }
}

/// A token or a quoted string, and what follows. No relation has a quote in it, so escapes are left as they are.
fn parse_value(text: &str) -> (&str, &str) {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => text.split_at(text.find([';', ',']).unwrap_or(text.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found_among_other_links() {
        for (header, next) in [
            ("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", Some("/v2/a/tags/list?last=b&n=2")),
            ("<http://r.example/v2/a/tags/list>;rel=next", Some("http://r.example/v2/a/tags/list")),
            ("</first>; rel=\"first\", </n>; title=\"a, <b>; c\"; REL=\"last Next\"", Some("/n")),
            ("</a,b>; x; rel = \"next\" ,</c>; rel=next", Some("/a,b")),
            ("</p>; rel=\"prev\"", None),
            ("</p>; rel=\"nextish\"", None),
            ("</p>", None),
            ("</p; rel=\"next\"", None),
            ("rel=\"next\"", None),
            ("", None),
        ] {
            assert_eq!(next_link([header].into_iter()), next, "{header}");
        }
        assert_eq!(next_link(["</p>; rel=prev", "</n>; rel=next"].into_iter()), Some("/n"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[<>;,=\" a-z]{0,60}|.{0,60}") {
            next_link([text.as_str()].into_iter());
        }
    }
}

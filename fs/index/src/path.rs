//! Paths as layers write them, made safe: no root, no `.`, no `..`, no empty component.

use crate::error::IndexError;
use crate::limits;

/// The components of a layer's path, cleaned as `path.Clean("/" + path)` would: `..` stops at the root.
///
/// # Errors
/// A NUL byte, a component over 255 bytes, or a path over the limits of [`limits`].
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, IndexError> {
    if path.len() > limits::PATH_BYTES_MAX {
        return Err(IndexError::path(path, "the path is too long"));
    }
    if path.contains(&0) {
        return Err(IndexError::path(path, "it has a NUL byte"));
    }
    let mut clean = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                clean.pop();
            }
            name if name.len() > limits::NAME_BYTES_MAX => return Err(IndexError::path(path, "a name is over 255 bytes long")),
            name => clean.push(name),
        }
    }
    if clean.len() > limits::PATH_COMPONENTS_MAX {
        return Err(IndexError::path(path, "it is nested too deeply"));
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_the_reference_does() {
        for (path, clean) in
            [("", ""), ("/", ""), ("./a", "a"), ("a//b/", "a/b"), ("../../a", "a"), ("a/../b/./c", "b/c"), ("/..", ""), ("a/..", "")]
        {
            let joined = components(path.as_bytes()).unwrap().join(&b'/');
            assert_eq!(String::from_utf8(joined).unwrap(), clean, "{path}");
        }
    }

    #[test]
    fn refuses_what_no_file_system_holds() {
        assert!(components(b"a\0b").is_err());
        assert!(components(&[b'a'; 256]).is_err());
        assert!(components(&b"a/".repeat(3000)).is_err());
        assert!(components(&[b'a'; 255]).is_ok());
    }
}

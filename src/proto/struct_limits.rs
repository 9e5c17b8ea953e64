//! The limits of a `google.protobuf.Struct`: one rule for encoded and for decoded ones.

/// The size of a `google.protobuf.Struct`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StructSize {
    /// The encoded size, in bytes.
    pub encoded_bytes: usize,
    /// The number of fields of all objects and of values of all lists.
    pub element_count: usize,
    /// The depth of the innermost object or list. The outermost object has depth 1.
    pub depth: usize,
    /// Whether a number is infinite or NaN, which JSON does not support.
    pub has_non_finite: bool,
    /// Whether the struct was not read to its end. It then has at least these elements and this depth.
    pub is_partial: bool,
}

/// The limits for the size of a `google.protobuf.Struct`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StructLimits {
    /// The maximum encoded size, in bytes.
    pub encoded_bytes_max: usize,
    /// The maximum number of elements.
    pub element_count_max: usize,
    /// The maximum depth.
    pub depth_max: usize,
}

impl StructLimits {
    /// Returns whether a struct of this size exceeds a limit.
    pub fn are_exceeded_by(&self, size: &StructSize) -> bool {
        size.encoded_bytes > self.encoded_bytes_max
            || size.element_count > self.element_count_max
            || size.depth > self.depth_max
    }

    /// Describes the violations of a struct: one for each limit that it exceeds, and one for numbers without a
    /// JSON form.
    pub fn describe_violations(&self, size: &StructSize) -> Vec<String> {
        let mut descriptions = Vec::new();
        for (actual, max, unit, is_partial) in [
            (size.encoded_bytes, self.encoded_bytes_max, "encoded bytes", false),
            (size.element_count, self.element_count_max, "elements", size.is_partial),
            (size.depth, self.depth_max, "levels of nesting", size.is_partial),
        ] {
            if actual > max {
                let actual = match is_partial {
                    true => format!("more than {}", actual - 1),
                    false => actual.to_string(),
                };
                descriptions.push(format!("must have at most {max} {unit}, has {actual}"));
            }
        }
        if size.has_non_finite {
            descriptions.push("must not contain infinite numbers or NaN".to_owned());
        }
        descriptions
    }
}

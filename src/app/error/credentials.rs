//! Why the credentials of a request are not accepted.

use crate::domain::text::TextError;

/// An error in the credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The request has no credentials.
    #[error("no credentials: send `authorization: Bearer <JWT>`")]
    Missing,
    /// The credentials are invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidCredentials),
}

/// The defect of the credentials of a request. The texts contain no part of the token except the role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// The header is not exactly one bearer token.
    #[error("send exactly one `authorization: Bearer <JWT>`")]
    HeaderMalformed,
    /// The token cannot be decoded.
    #[error("the token is damaged")]
    TokenDamaged,
    /// The token requires extensions that this server does not have.
    #[error("the token has critical headers; none is supported")]
    CriticalHeaders,
    /// The token was signed with an algorithm that is not configured for its issuer.
    #[error("the token's algorithm is not accepted from its issuer")]
    AlgorithmNotAccepted,
    /// The issuer does not publish the key of the token.
    #[error("the token's key is not one of its issuer's")]
    KeyUnknown,
    /// The issuer did not sign the token.
    #[error("the token's signature is invalid")]
    SignatureInvalid,
    /// The issuer is not configured.
    #[error("the token's issuer is not configured")]
    IssuerUnknown,
    /// The token is for another service.
    #[error("the token is for another audience")]
    AudienceUnknown,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token expired while an import was running.
    #[error("the token has expired; run the import again with a new one: nothing is imported twice")]
    ExpiredDuringImport,
    /// The token expired while a watch was running.
    #[error("token has expired; resume from the last cursor with a new one")]
    ExpiredDuringWatch,
    /// The token becomes valid later.
    #[error("the token is not valid yet")]
    NotValidYet,
    /// The token is valid for longer than the configuration allows its issuer.
    #[error(
        "the token is valid for {lifetime_seconds} s; the limit for its issuer is {lifetime_seconds_max} s"
    )]
    LifetimeTooLong { lifetime_seconds: u64, lifetime_seconds_max: u64 },
    /// A claim that every token must have is missing.
    #[error("one of the claims `exp`, `iss` and `aud` is missing or malformed")]
    RequiredClaimMissing,
    /// The claim with this path is missing.
    #[error("claim `{0}` is missing")]
    ClaimMissing(String),
    /// The claim with this path is not a string.
    #[error("claim `{0}` must be a string")]
    ClaimNotString(String),
    /// The claim with this path is not a number.
    #[error("claim `{0}` must be a number of seconds")]
    ClaimNotSeconds(String),
    /// The claim with this path is not a list of ids.
    #[error("claim `{0}` must be a list of ids")]
    ClaimNotIds(String),
    /// The claim with this path contains no scopes.
    #[error("claim `{0}` must be a text or a list of texts")]
    ClaimNotScopes(String),
    /// The claim contains text that is not an id.
    #[error("claim `{claim}` {problem}")]
    ClaimTextInvalid {
        /// The path of the claim.
        claim: String,
        /// What is wrong with its text.
        problem: TextError,
    },
    /// The claim has too many ids.
    #[error("claim `{claim}` has {id_count} ids; the limit is {id_count_max}")]
    ClaimTooLong { claim: String, id_count: usize, id_count_max: usize },
    /// The configuration does not map this role. Contains its first characters.
    #[error("role {0:?} is not configured")]
    RoleUnknown(String),
    /// An organization's token claims the role of an operator by default.
    #[error("operators have no role in an organization")]
    OperatorInOrganization,
    /// The token claims the role of an operator, which its issuer may not give.
    #[error("the token's issuer may not name operators")]
    OperatorNotAccepted,
    /// The configuration does not list this organization for the issuer. Contains its first characters.
    #[error("organization {0:?} is not accepted from the token's issuer")]
    OrganizationNotAccepted(String),
    /// The token names no organization, and the configuration lists those of its issuer.
    #[error("the token has no organization; its issuer may sign tokens for configured organizations only")]
    OrganizationRequired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_credentials_are_pinned() {
        use InvalidCredentials as I;
        let sub = || "sub".to_owned();
        assert_eq!(
            CredentialsError::Missing.to_string(),
            "no credentials: send `authorization: Bearer <JWT>`"
        );
        for (problem, text) in [
            (I::HeaderMalformed, "send exactly one `authorization: Bearer <JWT>`"),
            (I::TokenDamaged, "the token is damaged"),
            (I::CriticalHeaders, "the token has critical headers; none is supported"),
            (I::AlgorithmNotAccepted, "the token's algorithm is not accepted from its issuer"),
            (I::KeyUnknown, "the token's key is not one of its issuer's"),
            (I::SignatureInvalid, "the token's signature is invalid"),
            (I::IssuerUnknown, "the token's issuer is not configured"),
            (I::AudienceUnknown, "the token is for another audience"),
            (I::Expired, "the token has expired"),
            (
                I::ExpiredDuringImport,
                "the token has expired; run the import again with a new one: nothing is imported twice",
            ),
            (I::ExpiredDuringWatch, "token has expired; resume from the last cursor with a new one"),
            (I::NotValidYet, "the token is not valid yet"),
            (
                I::LifetimeTooLong { lifetime_seconds: 90_000, lifetime_seconds_max: 86_400 },
                "the token is valid for 90000 s; the limit for its issuer is 86400 s",
            ),
            (I::RequiredClaimMissing, "one of the claims `exp`, `iss` and `aud` is missing or malformed"),
            (I::ClaimMissing(sub()), "claim `sub` is missing"),
            (I::ClaimNotString(sub()), "claim `sub` must be a string"),
            (I::ClaimNotSeconds(sub()), "claim `sub` must be a number of seconds"),
            (I::ClaimNotIds(sub()), "claim `sub` must be a list of ids"),
            (I::ClaimNotScopes(sub()), "claim `sub` must be a text or a list of texts"),
            (
                I::ClaimTextInvalid { claim: sub(), problem: TextError::Empty },
                "claim `sub` must not be empty",
            ),
            (
                I::ClaimTooLong { claim: sub(), id_count: 129, id_count_max: 128 },
                "claim `sub` has 129 ids; the limit is 128",
            ),
            (I::RoleUnknown("janitor".to_owned()), "role \"janitor\" is not configured"),
            (I::OperatorInOrganization, "operators have no role in an organization"),
            (I::OperatorNotAccepted, "the token's issuer may not name operators"),
            (
                I::OrganizationNotAccepted("acme".to_owned()),
                "organization \"acme\" is not accepted from the token's issuer",
            ),
            (
                I::OrganizationRequired,
                "the token has no organization; its issuer may sign tokens for configured organizations only",
            ),
        ] {
            assert_eq!(CredentialsError::Invalid(problem).to_string(), text);
        }
    }
}

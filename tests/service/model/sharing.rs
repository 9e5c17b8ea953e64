//! Grants and links in the model: who may give them, what they permit, and how often a link serves its file.

use strongroom::proto::v1::{
    CreateShareRequest, FilePermission, GetShareRequest, GrantAccessRequest, RevokeAccessRequest,
    RevokeShareRequest, Share, ShareState, revoke_access_request,
};
use tonic::Status;

use super::{
    calls::{Call, Response},
    check,
    draw::PEOPLE,
    expected::{Person, Tenant, check_available, check_not_deleted},
    rng::Rng,
    sequence::Sequence,
};
use crate::{
    grants::{To, grant_request},
    harness::{Caller, Service, reason},
    visitors::{download, resolve},
};

/// A link to the current version of a file.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) file: String,
    pub(super) token: String,
    /// 0 means no maximum.
    pub(super) max_downloads: i64,
    pub(super) download_count: i64,
    pub(super) is_revoked: bool,
}

impl Link {
    fn is_exhausted(&self) -> bool {
        self.max_downloads > 0 && self.download_count >= self.max_downloads
    }
}

impl Tenant {
    /// Returns whether the person has a grant on a file.
    fn has_grant(&self, person: &Person, file: &str) -> bool {
        self.files.get(file).is_some_and(|file| file.grants.contains_key(person.user))
    }

    /// Returns the expected outcome of a change of grants and links.
    pub(super) fn expected_sharing_outcome(&self, person: &Person, call: &Call) -> Result<(), &'static str> {
        match call {
            Call::Share { file, .. } => check_available(self.find_changeable(person, file)?),
            Call::RevokeShare { share } => {
                let link = self.links.get(share).ok_or("NOT_FOUND")?;
                // Others than its creator, who is the owner or an admin, do not see a link.
                self.find_changeable(person, &link.file).map(|_| ()).map_err(|_| "NOT_FOUND")
            }
            Call::Grant { file, .. } => check_not_deleted(self.find_changeable(person, file)?),
            Call::RevokeGrant { file, user } => {
                self.files.get(file).ok_or("NOT_FOUND")?;
                // Everyone may revoke its own grant.
                if person.user == *user { Ok(()) } else { self.find_changeable(person, file).map(|_| ()) }
            }
            other => unreachable!("{other:?} shares nothing"),
        }
    }

    /// Records a change of grants and links that succeeded.
    pub(super) fn apply_sharing(&mut self, call: &Call, response: &Response) {
        match call {
            Call::Share { file, max_downloads } => {
                let (id, token) = response.link.clone().unwrap();
                let link = Link {
                    file: file.clone(),
                    token,
                    max_downloads: *max_downloads,
                    download_count: 0,
                    is_revoked: false,
                };
                self.links.insert(id, link);
            }
            Call::RevokeShare { share } => self.links.get_mut(share).unwrap().is_revoked = true,
            Call::Grant { file, user, is_deletion } => {
                self.files.get_mut(file).unwrap().grants.insert(user, *is_deletion);
            }
            Call::RevokeGrant { file, user } => {
                self.files.get_mut(file).unwrap().grants.remove(user);
            }
            other => unreachable!("{other:?} shares nothing"),
        }
    }

    /// Returns the bytes that a visitor of a link gets, or the reason of the error.
    fn expected_visit(&self, link: &Link) -> Result<Vec<u8>, &'static str> {
        let is_closed = link.is_revoked || link.is_exhausted();
        match self.files.get(&link.file).filter(|file| !is_closed && check_available(file).is_ok()) {
            Some(file) => Ok(file.versions[&file.current].bytes()),
            None => Err("NOT_FOUND"),
        }
    }
}

/// Draws a change of grants and links to a file, and its caller.
pub(super) fn draw_sharing_call(rng: &mut Rng, tenant: &Tenant, name: &str, file: String) -> (Person, Call) {
    let owner = tenant.files[&file].owner;
    let user = rng.pick(&["ann", "ben"].map(|user| if user == owner { "ann-marie" } else { user })).unwrap();
    let shares: Vec<String> = tenant.links.keys().cloned().collect();
    let is_open = |(_, link): &(&String, &Link)| link.file == file && !link.is_revoked;
    let open = tenant.links.iter().find(is_open).map(|(share, _)| share.clone());
    let call = match (name, rng.pick(&shares)) {
        ("revoke share", Some(share)) => Call::RevokeShare { share },
        // Revocations of links whose files still exist are rare otherwise.
        ("share", _) if open.is_some() && user == "ben" => Call::RevokeShare { share: open.unwrap() },
        ("grant", _) => Call::Grant { file: file.clone(), user, is_deletion: rng.chance(60) },
        ("revoke grant", _) => Call::RevokeGrant { file: file.clone(), user },
        _ => Call::Share { file: file.clone(), max_downloads: rng.below(3) as i64 },
    };
    let target = match &call {
        Call::RevokeShare { share } => tenant.links[share].file.clone(),
        _ => file,
    };
    // What a person may give on with its own grant is not modelled.
    let drawn = rng.pick(&PEOPLE).unwrap();
    let is_modelled = !tenant.has_grant(&drawn, &target);
    (if is_modelled && rng.chance(40) { drawn } else { PEOPLE[2].clone() }, call)
}

impl Call {
    pub(super) async fn change_sharing(
        self,
        caller: &Caller,
        request_id: String,
    ) -> Result<Response, Status> {
        let mut shares = caller.shares.clone();
        match self {
            Self::Share { file, max_downloads } => {
                let share = Share { file_id: file.clone(), max_downloads, ..Share::default() };
                let request = CreateShareRequest { share: Some(share), request_id, password: String::new() };
                let created = shares.create_share(request).await?.into_inner();
                let link = Some((created.share.clone().unwrap().id, created.token.clone()));
                Ok(Response { link, ..Response::new(&created, [caller.get(&file).await?]) })
            }
            Self::RevokeShare { share } => {
                let request = RevokeShareRequest { share_id: share, request_id };
                let revoked = shares.revoke_share(request).await?.into_inner();
                let file = caller.get(&revoked.share.clone().unwrap().file_id).await?;
                Ok(Response::new(&revoked, [file]))
            }
            Self::Grant { file, user, is_deletion } => {
                let permission = if is_deletion { FilePermission::Delete } else { FilePermission::View };
                let request =
                    GrantAccessRequest { request_id, ..grant_request(&file, To::User(user), permission) };
                let granted = shares.grant_access(request).await?.into_inner();
                Ok(Response::new(&granted, [caller.get(&file).await?]))
            }
            Self::RevokeGrant { file, user } => {
                let request = RevokeAccessRequest {
                    file_id: file.clone(),
                    principal: Some(revoke_access_request::Principal::UserId(user.to_owned())),
                    request_id,
                };
                let revoked = shares.revoke_access(request).await?.into_inner();
                Ok(Response::new(&revoked, [caller.get(&file).await?]))
            }
            other => unreachable!("{other:?} shares nothing"),
        }
    }
}

impl Sequence<'_> {
    /// Opens a link as a visitor and downloads its file.
    pub(super) async fn visit_link(&mut self, t: usize) {
        let ids: Vec<String> = self.tenants[t].links.keys().cloned().collect();
        let Some(id) = self.rng.pick(&ids) else { return };
        self.log_step(format!("tenant {t}, visitor: open link {id}"));
        let link = self.tenants[t].links[&id].clone();
        let visited = visit(&self.server.service, &link.token).await.map_err(|status| reason(&status));
        let expected = self.tenants[t].expected_visit(&link).map_err(str::to_owned);
        assert!(visited == expected, "{:?} and {:?}", visited.map(|bytes| bytes.len()), expected.err());
        self.tally.count("visit", expected.is_err());
        if expected.is_ok() {
            self.tenants[t].links.get_mut(&id).unwrap().download_count += 1;
        }
    }
}

async fn visit(server: &Service, token: &str) -> Result<Vec<u8>, Status> {
    let resolved = resolve(server, token, "").await?;
    Ok(download(server, &resolved.grant, 0, 0).await?.1)
}

/// Asserts that the counts and states of all links match. Revoked ones are deleted after some time.
pub(super) async fn assert_links(server: &Service, tenant: &Tenant) {
    let admin = check::caller_for(server, tenant, &PEOPLE[2]);
    for (id, link) in tenant.links.iter().filter(|(_, link)| !link.is_revoked) {
        let request = GetShareRequest { share_id: id.clone() };
        let share = admin.shares.clone().get_share(request).await.unwrap().into_inner().share.unwrap();
        let state = if link.is_exhausted() { ShareState::Exhausted } else { ShareState::Active };
        assert_eq!((share.download_count, share.state()), (link.download_count, state), "link {id}");
    }
}

// The ways to get a token: what the user configures, and the request body that Keystone v3 wants.

/** A user or project is named by id, or by name and domain. */
export interface NameInDomain {
  readonly id?: string;
  readonly name?: string;
  readonly domainId?: string;
  readonly domainName?: string;
}

export interface PasswordAuth {
  readonly type: 'password';
  readonly authUrl: string;
  readonly user: NameInDomain;
  readonly password: string;
  readonly project?: NameInDomain;
  readonly systemScope?: 'all';
}

export interface ApplicationCredentialAuth {
  readonly type: 'application_credential';
  readonly authUrl: string;
  readonly id?: string;
  readonly name?: string;
  /** Needed when the credential is named by name. */
  readonly user?: NameInDomain;
  readonly secret: string;
}

export interface TokenAuth {
  readonly type: 'token';
  readonly authUrl: string;
  readonly token: string;
  readonly project?: NameInDomain;
}

export type Auth = PasswordAuth | ApplicationCredentialAuth | TokenAuth;

/** `…/v3/auth/tokens` of an auth_url given with or without its version. */
export function tokensUrl(authUrl: string): string {
  const base = authUrl.replace(/\/+$/, '');
  return `${base.endsWith('/v3') ? base : `${base.replace(/\/v2\.0$/, '')}/v3`}/auth/tokens`;
}

export function authRequestBody(auth: Auth): unknown {
  return { auth: { identity: identityOf(auth), ...scopeOf(auth) } };
}

function identityOf(auth: Auth): unknown {
  switch (auth.type) {
    case 'password':
      return { methods: ['password'], password: { user: { ...reference(auth.user), password: auth.password } } };
    case 'application_credential':
      return { methods: ['application_credential'], application_credential: credentialOf(auth) };
    case 'token':
      return { methods: ['token'], token: { id: auth.token } };
  }
}

function credentialOf({ id, name, user, secret }: ApplicationCredentialAuth): unknown {
  if (id !== undefined) return { id, secret };
  return { name, user: reference(user ?? {}), secret };
}

function scopeOf(auth: Auth): { scope?: unknown } {
  if (auth.type === 'application_credential') return {};
  if (auth.type === 'password' && auth.systemScope) return { scope: { system: { all: true } } };
  return auth.project ? { scope: { project: reference(auth.project) } } : {};
}

function reference({ id, name, domainId, domainName }: NameInDomain): Record<string, unknown> {
  if (id !== undefined) return { id };
  return { name, domain: domainId === undefined ? { name: domainName ?? 'Default' } : { id: domainId } };
}

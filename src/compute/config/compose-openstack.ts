// keystoneauth's options of [placement], [neutron] … as settings of our clients (contract section 8.1).
import type { Auth, EndpointInterface, NameInDomain } from 'keystone-client-ts';
import type { ServiceSettings } from '#src/openstack/settings.ts';
import type { CinderConfig, NeutronConfig, ServiceUserConfig, VendorDataConfig, VendorTarget } from './config.ts';
import type { Options } from './options.ts';
import { SectionReader } from './read.ts';

export function composePlacement(options: Options): ServiceSettings {
  const reader = new SectionReader(options, 'placement');
  return { ...authSettings(reader, options), ...sessionSettings(reader), ...adapterSettings(reader) };
}

export function composeNeutron(options: Options): NeutronConfig {
  const reader = new SectionReader(options, 'neutron');
  return {
    connectRetries: reader.number('http_retries'),
    ...authSettings(reader, options),
    ...sessionSettings(reader),
    ...adapterSettings(reader),
    ovsBridge: reader.string('ovs_bridge'),
    extensionSyncIntervalMs: reader.ms('extension_sync_interval'),
  };
}

export function composeGlance(options: Options): ServiceSettings {
  const reader = new SectionReader(options, 'glance');
  const [server] = reader.strings('api_servers');
  return {
    statusRetries: reader.number('num_retries'),
    connectRetries: reader.number('num_retries'),
    ...(server !== undefined && { endpointOverride: server.replace(/\/v2\/?$/, '') }),
    ...sessionSettings(reader),
    ...adapterSettings(reader),
  };
}

export function composeCinder(options: Options): CinderConfig {
  const reader = new SectionReader(options, 'cinder');
  const [serviceType = '', serviceName = '', endpoint = ''] = reader.string('catalog_info').split(':');
  const region = reader.optionalString('os_region_name');
  const template = reader.optionalString('endpoint_template');
  return {
    connectRetries: reader.number('http_retries'),
    ...authSettings(reader, options),
    ...sessionSettings(reader),
    ...adapterSettings(reader),
    serviceType,
    ...(serviceName !== '' && { serviceName }),
    interfaces: [toInterface(endpoint)],
    ...(region !== undefined && { region }),
    ...(template !== undefined && { endpointOverride: withoutProject(template) }),
    crossAzAttach: reader.boolean('cross_az_attach'),
  };
}

/** Cinder finds the project by the token. */
function withoutProject(template: string): string {
  return template.replace(/\/[%$]\((project|tenant)_id\)s/, '');
}

export function composeServiceUser(options: Options): ServiceUserConfig {
  const reader = new SectionReader(options, 'service_user');
  const sendServiceUserToken = reader.boolean('send_service_user_token');
  const settings = { ...authSettings(reader, options), ...sessionSettings(reader) };
  if (sendServiceUserToken && !settings.auth) reader.complain('auth_type', 'must be set to send its token');
  return { ...settings, sendServiceUserToken };
}

export function composeVendorData(options: Options): VendorDataConfig {
  const api = new SectionReader(options, 'api');
  const user = new SectionReader(options, 'vendordata_dynamic_auth');
  const session = sessionSettings(user);
  const caFile = api.optionalString('vendordata_dynamic_ssl_certfile');
  const settings = {
    ...authSettings(user, options),
    tls: { ...session.tls, ...(caFile !== undefined && { caFile }) },
    timeoutMs: api.ms('vendordata_dynamic_connect_timeout') + api.ms('vendordata_dynamic_read_timeout'),
  };
  return {
    providers: api.strings('vendordata_providers'),
    file: api.optionalString('vendordata_jsonfile_path') ?? null,
    targets: api.strings('vendordata_dynamic_targets').flatMap((text) => vendorTarget(api, text)),
    settings,
    isFailureFatal: api.boolean('vendordata_dynamic_failure_fatal'),
  };
}

/** `name@url`. */
function vendorTarget(api: SectionReader, text: string): readonly VendorTarget[] {
  const [, name, url] = /^([^@]+)@(https?:\/\/.+)$/.exec(text) ?? [];
  if (name !== undefined && url !== undefined && URL.canParse(url)) return [{ name, url }];
  api.complain('vendordata_dynamic_targets', `${text} is not name@url`);
  return [];
}

function sessionSettings(reader: SectionReader): Pick<ServiceSettings, 'tls' | 'timeoutMs'> {
  const caFile = reader.optionalString('cafile');
  const certFile = reader.optionalString('certfile');
  const keyFile = reader.optionalString('keyfile');
  const timeout = reader.optionalNumber('timeout');
  return {
    tls: {
      ...(caFile !== undefined && { caFile }),
      ...(certFile !== undefined && { certFile }),
      ...(keyFile !== undefined && { keyFile }),
      insecure: reader.boolean('insecure'),
    },
    ...(timeout !== undefined && { timeoutMs: timeout * 1000 }),
  };
}

function adapterSettings(reader: SectionReader): ServiceSettings {
  const texts = {
    serviceType: reader.optionalString('service_type'),
    serviceName: reader.optionalString('service_name'),
    region: reader.optionalString('region_name'),
    endpointOverride: reader.optionalString('endpoint_override'),
  };
  const delay = reader.optionalNumber('connect_retry_delay');
  const numbers = {
    connectRetries: reader.optionalNumber('connect_retries'),
    connectRetryDelayMs: delay === undefined ? undefined : delay * 1000,
    statusRetries: reader.optionalNumber('status_code_retries'),
  };
  return {
    ...given(texts),
    ...given(numbers),
    retriableStatuses: reader.numbers('retriable_status_codes'),
    interfaces: reader.strings('valid_interfaces').map(toInterface),
  };
}

/** Without the keys whose value is undefined. */
function given<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

/** `internal`, and in the older way `internalURL`. */
function toInterface(name: string): EndpointInterface {
  return name.replace(/URL$/, '') as EndpointInterface;
}

function authSettings(reader: SectionReader, options: Options): Pick<ServiceSettings, 'auth'> {
  const elsewhere = reader.optionalString('auth_section');
  if (elsewhere !== undefined && !options.has(elsewhere, 'auth_type')) {
    reader.complain('auth_section', `[${elsewhere}] has no auth options`);
    return {};
  }
  const source = elsewhere === undefined ? reader : new SectionReader(options, elsewhere);
  const type = source.optionalString('auth_type');
  if (type === undefined) return {};
  const auth = authOf(type, source);
  return auth ? { auth } : {};
}

function authOf(type: string, reader: SectionReader): Auth | undefined {
  const authUrl = needed(reader, 'auth_url');
  switch (type) {
    case 'password':
    case 'v3password':
      return passwordAuth(reader, authUrl);
    case 'v3applicationcredential':
      return applicationCredentialAuth(reader, authUrl);
    case 'token':
    case 'v3token':
      return { type: 'token', authUrl, token: needed(reader, 'token'), ...projectOf(reader) };
    default:
      reader.complain('auth_type', `${type} is not known; use password, v3applicationcredential or v3token`);
      return undefined;
  }
}

function passwordAuth(reader: SectionReader, authUrl: string): Auth {
  const user = userOf(reader);
  if (user.id === undefined && user.name === undefined) reader.complain('username', 'must be set, or user_id');
  const base = { type: 'password', authUrl, user, password: needed(reader, 'password') } as const;
  return reader.optionalString('system_scope') === undefined
    ? { ...base, ...projectOf(reader) }
    : { ...base, systemScope: 'all' };
}

function applicationCredentialAuth(reader: SectionReader, authUrl: string): Auth {
  const id = reader.optionalString('application_credential_id');
  const name = reader.optionalString('application_credential_name');
  const secret = needed(reader, 'application_credential_secret');
  if (id !== undefined) return { type: 'application_credential', authUrl, id, secret };
  if (name === undefined) reader.complain('application_credential_id', 'must be set, or application_credential_name');
  return { type: 'application_credential', authUrl, ...given({ name }), user: userOf(reader), secret };
}

function needed(reader: SectionReader, option: string): string {
  const value = reader.optionalString(option);
  if (value === undefined) reader.complain(option, 'must be set');
  return value ?? '';
}

function userOf(reader: SectionReader): NameInDomain {
  const user = { id: reader.optionalString('user_id'), name: reader.optionalString('username') };
  return { ...given(user), ...domainOf(reader, 'user') };
}

function projectOf(reader: SectionReader): { readonly project?: NameInDomain } {
  const id = reader.optionalString('project_id');
  const name = reader.optionalString('project_name');
  if (id === undefined && name === undefined) return {};
  return { project: { ...given({ id, name }), ...domainOf(reader, 'project') } };
}

/** The domain of its own, else the default one; ids before names. */
function domainOf(reader: SectionReader, of: 'user' | 'project'): Pick<NameInDomain, 'domainId' | 'domainName'> {
  const [own, shared] = [`${of}_domain`, 'default_domain'].map((prefix) => ({
    domainId: reader.optionalString(`${prefix}_id`),
    domainName: reader.optionalString(`${prefix}_name`),
  }));
  return given(own?.domainId === undefined && own?.domainName === undefined ? { ...shared } : own);
}

// Projects, users, roles, services and endpoints: made once, through Keystone's API.
import { Cloud } from './cloud.ts';
import { KEYSTONE_URL, PASSWORD, PORTS, REGION } from './settings.ts';

interface Named {
  readonly id: string;
  readonly name: string;
}

const ENDPOINTS = [
  ['compute', 'nova', `http://127.0.0.1:${PORTS.nova}/v2.1`],
  ['placement', 'placement', `http://127.0.0.1:${PORTS.placement}`],
  ['image', 'glance', `http://127.0.0.1:${PORTS.glance}`],
  ['network', 'neutron', `http://127.0.0.1:${PORTS.neutron}`],
] as const;

class Identity {
  readonly #cloud = new Cloud();

  /** The object of that name, made when it is absent. */
  async ensure(collection: string, single: string, body: Readonly<Record<string, unknown>>): Promise<string> {
    const { identity } = this.#cloud;
    const listed = await this.#cloud.get<Record<string, readonly Named[]>>(identity, `/${collection}`);
    const found = listed[collection]?.find(({ name }) => name === body['name']);
    if (found) return found.id;
    const made = await this.#cloud.post<Record<string, Named>>(identity, `/${collection}`, { [single]: body });
    return made[single]?.id ?? '';
  }

  async grant(project: string, user: string, role: string): Promise<void> {
    const path = `/projects/${project}/users/${user}/roles/${role}`;
    await this.#cloud.identity.request({ method: 'PUT', path });
  }

  async endpoints(type: string, name: string, url: string): Promise<void> {
    const service = await this.ensure('services', 'service', { name, type });
    const path = `/endpoints?service_id=${service}`;
    const { endpoints } = await this.#cloud.get<{ endpoints: readonly { interface: string }[] }>(
      this.#cloud.identity,
      path,
    );
    for (const wanted of ['public', 'internal']) {
      if (endpoints.some((endpoint) => endpoint.interface === wanted)) continue;
      const endpoint = { service_id: service, interface: wanted, url, region_id: REGION };
      await this.#cloud.post(this.#cloud.identity, '/endpoints', { endpoint });
    }
  }
}

/** Needs ensureIdentity(); idempotent. */
export async function ensureVolumeService(): Promise<void> {
  const identity = new Identity();
  const project = await identity.ensure('projects', 'project', { name: 'service', domain_id: 'default' });
  const user = await identity.ensure('users', 'user', { name: 'cinder', password: PASSWORD, domain_id: 'default' });
  for (const name of ['admin', 'service']) {
    await identity.grant(project, user, await identity.ensure('roles', 'role', { name }));
  }
  await identity.endpoints('volumev3', 'cinderv3', `http://127.0.0.1:${PORTS.cinder}/v3/$(project_id)s`);
}

/** Needs Keystone, bootstrapped; idempotent. */
export async function ensureIdentity(): Promise<void> {
  const identity = new Identity();
  const role = async (name: string) => await identity.ensure('roles', 'role', { name });
  const user = async (name: string) =>
    await identity.ensure('users', 'user', { name, password: PASSWORD, domain_id: 'default' });
  const project = async (name: string) => await identity.ensure('projects', 'project', { name, domain_id: 'default' });
  const [service, demo] = [await project('service'), await project('demo')];
  const roles = {
    admin: await role('admin'),
    service: await role('service'),
    member: await role('member'),
    reader: await role('reader'),
  };
  for (const name of ['nova', 'placement', 'glance', 'neutron']) {
    const id = await user(name);
    await identity.grant(service, id, roles.admin);
    await identity.grant(service, id, roles.service);
  }
  const demoUser = await user('demo');
  await identity.grant(demo, demoUser, roles.member);
  await identity.grant(demo, demoUser, roles.reader);
  for (const [type, name, url] of ENDPOINTS) await identity.endpoints(type, name, url);
  await identity.endpoints('identity', 'keystone', KEYSTONE_URL);
}

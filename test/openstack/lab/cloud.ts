// The lab's cloud through its REST APIs, as an administrator sees it.
import { KeystoneSession, OpenStackError, ServiceClient } from 'keystone-client-ts';
import { KEYSTONE_URL, PASSWORD, REGION } from './settings.ts';

type Body = Readonly<Record<string, unknown>>;

export interface Server {
  readonly id: string;
  readonly name: string;
  readonly status: string;
  readonly addresses: Readonly<Record<string, readonly { readonly addr: string; readonly version: number }[]>>;
  readonly fault?: { readonly message: string; readonly code: number; readonly details?: string };
  readonly 'OS-EXT-STS:task_state': string | null;
  readonly 'OS-EXT-STS:vm_state': string;
  readonly 'OS-EXT-SRV-ATTR:host': string | null;
  readonly 'OS-EXT-SRV-ATTR:instance_name': string;
}

export interface CloudUser {
  readonly name: string;
  readonly project: string;
}

/** One client per service; all errors are OpenStackError. */
export class Cloud {
  readonly identity: ServiceClient;
  readonly compute: ServiceClient;
  readonly network: ServiceClient;
  readonly image: ServiceClient;
  readonly volume: ServiceClient;
  readonly placement: ServiceClient;

  constructor({ name, project }: CloudUser = { name: 'admin', project: 'admin' }) {
    const tokens = new KeystoneSession({
      auth: {
        type: 'password',
        authUrl: KEYSTONE_URL,
        user: { name },
        password: PASSWORD,
        project: { name: project },
      },
    });
    const client = (serviceType: string, override?: string) =>
      new ServiceClient({
        tokens,
        endpoint: { serviceType, interfaces: ['public'], region: REGION, ...(override !== undefined && { override }) },
        timeoutMs: 120_000,
      });
    this.identity = client('identity', KEYSTONE_URL);
    this.compute = client('compute');
    this.network = client('network');
    this.image = client('image');
    this.volume = client('volumev3');
    this.placement = client('placement');
  }

  async get<T>(service: ServiceClient, path: string, headers: Readonly<Record<string, string>> = {}): Promise<T> {
    return (await service.request({ method: 'GET', path, headers: { ...NOVA, ...headers } })).data as T;
  }

  async post<T>(service: ServiceClient, path: string, body: unknown): Promise<T> {
    return (await service.request({ method: 'POST', path, body, headers: NOVA })).data as T;
  }

  async delete(service: ServiceClient, path: string): Promise<void> {
    await service.request({ method: 'DELETE', path, headers: NOVA });
  }

  async createServer(server: Body): Promise<string> {
    return (await this.post<{ server: { id: string } }>(this.compute, '/servers', { server })).server.id;
  }

  /** Undefined when it does not exist (any more). */
  async server(id: string): Promise<Server | undefined> {
    try {
      return (await this.get<{ server: Server }>(this.compute, `/servers/${id}`)).server;
    } catch (error) {
      if (error instanceof OpenStackError && error.status === 404) return undefined;
      throw error;
    }
  }

  async action(id: string, action: Body): Promise<unknown> {
    return await this.post(this.compute, `/servers/${id}/action`, action);
  }
}

const NOVA = { 'OpenStack-API-Version': 'compute 2.92', 'X-OpenStack-Nova-API-Version': '2.92' };

// What the operator tells all instances (appendix E.6): a file of his, and services that he runs.
import { readFile } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { createServiceClient } from '#src/openstack/service.ts';
import type { MetadataConfig, VendorTarget } from '../config/config.ts';
import type { VendorData } from './metadata/facts.ts';

type Options = MetadataConfig['vendorData'];

export interface VendorAsking {
  readonly options: Options;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * The file is read anew for each instance, as Nova does; services are only asked for an instance that is given what they
 * answer (`isWhole`). AppError 'internal' when the file is not to be had, 'unavailable' for a service where that is fatal.
 */
export async function vendorData(
  asking: VendorAsking,
  instance: NovaObject<'Instance'>,
  isWhole: boolean,
): Promise<VendorData> {
  const { providers, file, targets } = asking.options;
  const hasFile = providers.includes('StaticJSON');
  const data = hasFile && file !== null ? await readJson(file) : {};
  const all: Record<string, unknown> = hasFile ? { static: data } : {};
  if (!isWhole || !providers.includes('DynamicJSON')) return { static: hasFile ? data : null, all };
  const answers = await Promise.all(
    targets.map(async (target) => [target.name, await answerOf(asking, target, instance)] as const),
  );
  for (const [name, answer] of answers) all[name] ??= answer;
  return { static: hasFile ? data : null, all };
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    // shown to the owner of an instance, who has no use for paths of the host
    throw new AppError('internal', 'the file of vendordata_jsonfile_path cannot be read', { cause });
  }
}

async function answerOf(
  { options, log, signal }: VendorAsking,
  { name, url }: VendorTarget,
  instance: NovaObject<'Instance'>,
): Promise<unknown> {
  try {
    const { data } = await clientOf(options, url).request({
      method: 'POST',
      path: '',
      body: factsOf(instance),
      signal,
      ...(options.settings.auth === undefined && { token: '' }), // as Nova: without credentials the request goes all the same
    });
    return typeof data === 'object' && data !== null ? data : {};
  } catch (cause) {
    signal.throwIfAborted();
    log.warn('a service of vendor data does not answer', { name, instance: instance.get('uuid'), error: cause });
    if (!options.isFailureFatal) return {};
    throw new AppError('unavailable', `the vendor data service ${name} does not answer`, { cause });
  }
}

/** Neither password nor files of the request: they are between the owner and the guest. */
function factsOf(instance: NovaObject<'Instance'>): object {
  const text = (field: 'project_id' | 'image_ref' | 'user_data' | 'hostname') => instance.find(field) ?? null;
  return {
    'project-id': text('project_id'),
    'instance-id': instance.get('uuid'),
    'image-id': text('image_ref'),
    'user-data': text('user_data'),
    hostname: text('hostname'),
    metadata: instance.find('metadata') ?? {},
    'boot-roles': instance.find('system_metadata')?.['boot_roles'] ?? '',
  };
}

type Client = ReturnType<typeof createServiceClient>;

/** Tokens and connections outlive the single request. */
const clients = new WeakMap<Options, Map<string, Client>>();

function clientOf(options: Options, url: string): Client {
  const known = clients.get(options) ?? new Map<string, Client>();
  clients.set(options, known);
  const settings = { ...options.settings, endpointOverride: url };
  const client = known.get(url) ?? createServiceClient({ serviceType: 'vendordata', connectRetries: 0 }, { settings });
  known.set(url, client);
  return client;
}

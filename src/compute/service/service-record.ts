// The Service record by which Nova knows this compute (contract section 4.1, steps 7 and 9).
import { isNova } from '#src/nova/exceptions.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { type Asking, findService } from '../records.ts';

export type ServiceRecord = NovaObject<'Service'>;

/**
 * Made when there is none, else brought to the version. `chooseVersion` is asked again when the cell has become newer
 * meanwhile; a second refusal is the caller's to report.
 */
export async function registerService(
  asking: Asking,
  host: string,
  present: ServiceRecord | undefined,
  chooseVersion: (present: number) => Promise<number>,
): Promise<ServiceRecord> {
  const version = await chooseVersion(present?.get('version') ?? 0);
  try {
    return await writeService(asking, { host, present, version });
  } catch (error) {
    if (isNova(error, 'ServiceTooOld')) {
      const newer = await chooseVersion(present?.get('version') ?? 0);
      return await writeService(asking, { host, present, version: newer });
    }
    if (!isNova(error, 'ServiceTopicExists', 'ServiceBinaryExists')) throw error;
    // made by a process that is just gone
    const other = await findService(asking, host);
    if (!other) throw error;
    return await writeService(asking, { host, present: other, version });
  }
}

interface Wanted {
  readonly host: string;
  readonly present: ServiceRecord | undefined;
  readonly version: number;
}

async function writeService(
  { conductor, context }: Asking,
  { host, present, version }: Wanted,
): Promise<ServiceRecord> {
  if (present) {
    present.set('version', version);
    await conductor.save(context, present);
    return present;
  }
  const fields = { host, binary: 'nova-compute', topic: 'compute', report_count: 0, version };
  const record = createObject('Service', fields);
  await conductor.objectMethod(context, record, { method: 'create' });
  return record;
}

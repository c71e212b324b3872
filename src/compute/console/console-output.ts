// get_console_output: the end of what the guest printed (section 5.13).
import { kindOf } from '#src/lib/errors.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';

/** As much as Nova's own drivers read. */
const MAX_BYTES = 102_400;

/** ASCII text; of `tailLength` lines when given (0: nothing, negative or null: all). */
export async function consoleOutput(
  virt: VirtDriver,
  instance: NovaObject<'Instance'>,
  tailLength: number | null,
  signal: AbortSignal,
): Promise<string> {
  const text = asciiOf(await readLog(virt, instance, signal));
  if (tailLength === null || tailLength < 0) return text;
  return tailLength === 0 ? '' : lastLines(text, tailLength);
}

async function readLog(virt: VirtDriver, instance: NovaObject<'Instance'>, signal: AbortSignal): Promise<Uint8Array> {
  try {
    return await virt.consoleLog(instance.get('uuid'), MAX_BYTES, signal);
  } catch (error) {
    if (kindOf(error) === 'not_found') {
      throw novaException('InstanceNotFound', { instance_id: instance.get('uuid') }, { cause: error });
    }
    if (kindOf(error) === 'conflict') throw novaException('ConsoleNotAvailable', {}, { cause: error });
    throw error;
  }
}

/** A replacement character where Python's ASCII decoder would put one. */
function asciiOf(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('latin1')
    .replaceAll(/[\u0080-\u00ff]/g, '\uFFFD');
}

/** As Nova counts them, for whom nothing after a final newline is a line as well. */
function lastLines(text: string, count: number): string {
  return text.split('\n').slice(-count).join('\n');
}

// What the drivers need of the host's interfaces: their names checked, made by one run of ip(8), quiet on tenants' networks, removed.
import { CommandError } from '#src/host/command-error.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';

/** Nova and the agents cut ids at eleven characters behind a prefix of three, so that names fit into IFNAMSIZ. */
const ID_CHARACTERS = 11;

export function portName(prefix: string, id: string): string {
  return `${prefix}${id.slice(0, ID_CHARACTERS)}`;
}

/** They go into lines of a batch, and into paths. */
export function checkNames(portId: string, names: readonly string[]): void {
  for (const name of names) {
    if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name)) continue;
    throw new AppError('invalid', `port ${portId}: ${JSON.stringify(name)} cannot be the name of an interface`);
  }
}

export async function hasLink(host: Host, name: string): Promise<boolean> {
  return host.exists(`/sys/class/net/${name}`);
}

export async function hasIpv6(host: Host): Promise<boolean> {
  return host.exists('/proc/sys/net/ipv6/conf/all');
}

/** The lines are commands of ip(8); it stops at the first one that fails. */
export async function runIp(host: Host, lines: readonly string[], signal: AbortSignal): Promise<void> {
  if (lines.length > 0) await host.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n`, signal });
}

/** The host must not answer on a tenant's network. */
export async function disableIpv6(host: Host, names: readonly string[]): Promise<void> {
  if (!(await hasIpv6(host))) return;
  for (const name of names) await host.writeFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
}

/** Absent is success. Of a pair the other end goes as well. */
export async function removeLinks(host: Host, names: readonly string[], signal: AbortSignal): Promise<void> {
  for (const name of names) {
    if (!(await hasLink(host, name))) continue;
    try {
      await host.run(['ip', 'link', 'delete', 'dev', name], { signal });
    } catch (error) {
      if (!(error instanceof CommandError) || (await hasLink(host, name))) throw error;
    }
  }
}

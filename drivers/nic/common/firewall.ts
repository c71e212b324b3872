// Chains of nftables that belong to one nic: in tables named lxd, each replaced as a whole, all of a nic in one transaction.
import type { Host } from '#src/host/host.ts';
import type { NicDevice } from '../driver.ts';

export interface FirewallChain {
  readonly family: 'bridge' | 'inet' | 'netdev';
  readonly name: string;
  /** Type, hook, priority and policy, in nft's words. */
  readonly hook: string;
  /** In order. Whatever users named in them is checked or quoted. */
  readonly rules: readonly string[];
}

type ChainKey = Pick<FirewallChain, 'family' | 'name'>;
type NicKey = Pick<NicDevice, 'instance' | 'device'>;

const NFT_LIMIT_MS = 30_000;

/** `in.NAME.DEVICE`, as LXD calls them: PROJECT_NAME outside the default project. What nft takes in no name is escaped. */
export function chainName(kind: string, { instance, device }: NicKey): string {
  const owner = instance.project === 'default' ? instance.name : `${instance.project}_${instance.name}`;
  return `${kind}.${escaped(owner, /[^A-Za-z0-9_-]/g)}.${escaped(device, /[^A-Za-z0-9_.-]/g)}`;
}

function escaped(text: string, odd: RegExp): string {
  return text.replace(odd, (character) => `/${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** Makes the chains, or replaces them. All or nothing. */
export async function setChains(host: Host, chains: readonly FirewallChain[], signal?: AbortSignal): Promise<void> {
  await runNft(host, [...chains.map(removal), ...chains.map(creation)], signal);
}

/** Those that are absent are not an error. */
export async function removeChains(host: Host, chains: readonly ChainKey[], signal?: AbortSignal): Promise<void> {
  await runNft(host, chains.map(removal), signal);
}

/** From `before` to `after`, in one transaction. */
export async function replaceChains(
  host: Host,
  before: readonly FirewallChain[],
  after: readonly FirewallChain[],
  signal: AbortSignal,
): Promise<void> {
  if (JSON.stringify(before) === JSON.stringify(after)) return;
  await runNft(host, [...[...before, ...after].map(removal), ...after.map(creation)], signal);
}

async function runNft(host: Host, statements: readonly string[], signal?: AbortSignal): Promise<void> {
  if (statements.length === 0) return;
  const options = { input: statements.join(''), timeoutMs: NFT_LIMIT_MS, ...(signal && { signal }) };
  await host.run(['nft', '-f', '-'], options);
}

/** nft of Debian 12 has no "destroy": what is deleted is made first if need be. */
function removal({ family, name }: ChainKey): string {
  const chain = `${family} lxd ${name}`;
  return `add table ${family} lxd\nadd chain ${chain}\nflush chain ${chain}\ndelete chain ${chain}\n`;
}

function creation({ family, name, hook, rules }: FirewallChain): string {
  const chain = `${family} lxd ${name}`;
  return [`add chain ${chain} { ${hook} }\n`, ...rules.map((rule) => `add rule ${chain} ${rule}\n`)].join('');
}

// Names of instances: what they may be, and one for those who name none.
import { randomInt } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';

/** AppError 'invalid' with LXD's text. */
export function validateInstanceName(name: string): void {
  const complaint = complaintAbout(name);
  if (complaint !== undefined) throw new AppError('invalid', complaint);
}

function complaintAbout(name: string): string | undefined {
  if (name.includes('/')) return 'The character "/" is reserved for snapshots';
  const reason = hostnameComplaint(name);
  return reason === undefined ? undefined : `Invalid instance name: ${reason}`;
}

function hostnameComplaint(name: string): string | undefined {
  if (name.length < 1 || name.length > 63) return 'Name must be 1-63 characters long';
  if (/^\d/.test(name)) return 'Name must not start with a number';
  if (name.startsWith('-')) return 'Name must not start with "-" character';
  if (name.endsWith('-')) return 'Name must not end with "-" character';
  return /[^A-Za-z0-9-]/.test(name) ? 'Name can only contain alphanumeric and hyphen characters' : undefined;
}

const ADJECTIVES =
  'able agile amber awake bold brave brief bright brisk broad calm candid casual clean clear clever close cosmic crisp curious daring deep direct eager early easy exact fair famous fast fine firm fit fleet fluent fond free fresh full gentle glad golden good grand great happy hardy helpful honest humble ideal keen kind large late lively live local logical loyal lucky major merry mild modern modest neat nimble noble normal novel open patient placid plain poised polite proud pure quick quiet rapid rare ready regular rich robust rosy safe sharp shiny simple sincere smart smooth social solid sound spry stable steady strong subtle sunny super sure sweet swift tidy tight topical true trusty upright useful valid vast vital vivid warm wealthy welcome whole wise witty';
const ANIMALS =
  'aardvark adder albatross alpaca ant antelope asp badger barnacle bass bat bear beaver bee beetle bird bison boar bobcat buck bug bull bunny camel caribou cat catfish cheetah chicken chimp chipmunk clam cobra cod coral cougar cow coyote crab crane cricket crow deer dingo dodo dog dolphin donkey dove dragon drake duck eagle eel egret elephant elk emu falcon fawn feline ferret finch fish flamingo fox frog gannet garfish gecko gibbon giraffe goat goldfish goose gopher gorilla grackle griffon grouse gull hagfish halibut hamster hare hawk hen heron hippo hog hornet horse hound husky ibex iguana impala jackal jaguar jay jennet joey kangaroo kitten kiwi koala koi ladybug lamb lark lemming lemur leopard liger lion lizard llama lobster locust loon lynx mackerel magpie mako mallard mammal mantis marlin marmot marten martin mayfly meerkat midge mink minnow mole mongoose monkey moose moth mouse mule mullet muskox mustang newt octopus opossum orca oriole osprey owl ox oyster panda panther parrot peacock pelican penguin perch pheasant pig pigeon piglet pika pipefish piranha platypus pony porpoise possum primate prawn puma pup python quagga quail rabbit raccoon raptor rat raven ray redbird reindeer robin rodent rooster sailfish salmon sawfish seagull seal shad shark sheep shepherd shiner shrew shrimp skunk skylark sloth slug snail snake snapper snipe sole spaniel sparrow spider squid squirrel stag stallion starfish stork stud sturgeon sunfish swan swift tadpole tapir tarpon termite terrapin tetra thrush tick tiger titmouse toad toucan treefrog troll trout tuna turkey turtle unicorn urchin viper vulture wahoo walleye walrus warthog wasp weasel whale whippet wildcat wolf wombat woodcock worm wren yak yeti zebra';

const pick = (words: readonly string[]): string => words[randomInt(words.length)] ?? 'plain';

/** "adjective-animal" that `isTaken` does not know. */
export function generateInstanceName(isTaken: (name: string) => boolean): string {
  const adjectives = ADJECTIVES.split(' ');
  const animals = ANIMALS.split(' ');
  for (let tries = 0; tries < 1000; tries++) {
    const name = `${pick(adjectives)}-${pick(animals)}`;
    if (!isTaken(name)) return name;
  }
  throw new AppError('internal', 'Failed generating an instance name that is free');
}
